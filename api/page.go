package api

import (
	"bytes"
	"crypto/sha256"
	_ "embed" // for the page's parts
	"encoding/base64"
	"errors"
)

// The page at /docs: one document with its style and its script inside, which
// fetches /openapi.json and nothing else.
var (
	//go:embed docs/page.html
	pageHTML string
	//go:embed docs/page.css
	pageCSS string
	//go:embed docs/page.js
	pageJS string
)

// page is the assembled page and the policy under which a browser runs it.
type page struct {
	constant
	policy string
}

// newPage puts style and script into the page. The policy names them by hash, so
// that nothing else would run, whatever a document might say.
func newPage() (*page, error) {
	html := []byte(pageHTML)
	for _, part := range []struct{ mark, text string }{{"/*page.css*/", pageCSS}, {"/*page.js*/", pageJS}} {
		if bytes.Count(html, []byte(part.mark)) != 1 {
			return nil, errors.New("docs/page.html has no place for " + part.mark)
		}
		html = bytes.Replace(html, []byte(part.mark), []byte(part.text), 1)
	}
	policy := "default-src 'none'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'" +
		"; style-src '" + hash(pageCSS) + "'; script-src '" + hash(pageJS) + "'"
	return &page{newConstant("text/html; charset=utf-8", html), policy}, nil
}

func hash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "sha256-" + base64.StdEncoding.EncodeToString(sum[:])
}
