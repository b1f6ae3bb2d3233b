package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/redis/go-redis/v9"

	"mythiccache/producers/stream"
)

// writeLetters writes the dead letters that each gives as a table.
func writeLetters(out io.Writer, each func(line func(stream.DeadLetter) error) error) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	n := 0
	err := each(func(l stream.DeadLetter) error {
		if n++; n == 1 {
			fmt.Fprintln(w, "ID\tGROUP\tTOPIC\tTYPE\tDELIVERIES\tSINCE\tREASON")
		}
		_, err := fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%s\t%s\n", l.ID, inLine(l.Group, 64), inLine(l.Topic, 64), inLine(l.Type, 64),
			l.Deliveries, l.Last.UTC().Format(time.RFC3339), inLine(l.Reason, 200))
		return err
	})
	if err != nil {
		return err
	}
	if n == 0 {
		fmt.Fprintln(w, "no dead letters")
	}
	return w.Flush()
}

// examineDeadLetters looks how many dead letters there are: nothing removes them but
// a person.
func (c *config) examineDeadLetters(ctx context.Context, client redis.UniversalClient) finding {
	letters := stream.NewDeadLetters(client, stream.NewKeys(c.Prefix))
	counts, err := letters.Count(ctx)
	bytes, sizeErr := letters.Size(ctx)
	if err := errors.Join(err, sizeErr); err != nil {
		return finding{true, err.Error(), "see that nothing but streams is kept under " + c.Prefix + "{stream}:"}
	}
	total := int64(0)
	for _, n := range counts {
		total += n
	}
	found := finding{what: fmt.Sprintf("%d dead letters with %s", total, size(bytes))}
	switch {
	case total > stream.DeadMost || bytes > stream.DeadMostBytes:
		found.bad = true
		found.what += ": more than Redis should be left with"
		found.mend = "mythic-cache dlq list; then dlq replay what is mended and dlq drop the rest, by --topic, --type, --reason, --older-than"
	case total > 0:
		found.mend = "mythic-cache dlq list"
	}
	return found
}

// inLine makes a text, which may be anything, fit for one line of a terminal.
func inLine(text string, most int) string {
	text = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, text)
	if runes := []rune(text); len(runes) > most {
		return string(runes[:most-1]) + "…"
	}
	return text
}

// writeLetter writes one dead letter as JSON. Fields that are no text, which JSON
// could not show as they are, stand apart in base64.
func writeLetter(out io.Writer, letter stream.DeadLetter) error {
	binary := map[string]string{}
	for name, value := range letter.Fields {
		if utf8.ValidString(name) && utf8.ValidString(value) {
			continue
		}
		delete(letter.Fields, name)
		if !utf8.ValidString(name) {
			name = strconv.QuoteToASCII(name)
		}
		binary[name] = base64.StdEncoding.EncodeToString([]byte(value))
	}
	encoder := json.NewEncoder(out)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	return encoder.Encode(struct {
		stream.DeadLetter

		Binary map[string]string `json:"fields_base64,omitempty"`
	}{letter, binary})
}
