package api

import (
	"embed"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"mythiccache/cache/view"
)

// operations holds the OpenAPI document: document.json without its paths, and a
// file for each operation.
//
//go:embed openapi/*.json
var operations embed.FS

// documentRoutes describe the API.
func (s *Server) documentRoutes() []route {
	return []route{
		{method: http.MethodGet, path: "/openapi.json", operation: "getDocument", handle: s.getDocument},
		{method: http.MethodGet, path: "/docs", operation: "getDocs", handle: s.getDocs},
	}
}

func (s *Server) getDocument(x *exchange) error {
	return x.constant(s.document)
}

func (s *Server) getDocs(x *exchange) error {
	x.Header().Set("Content-Security-Policy", s.page.policy)
	x.Header().Set("Referrer-Policy", "no-referrer")
	return x.constant(s.page.constant)
}

// describe forms the OpenAPI document of the routes.
func (s *Server) describe(routes []route) ([]byte, error) {
	var document map[string]any
	if err := readOperation("document", &document); err != nil {
		return nil, err
	}
	if info, ok := document["info"].(map[string]any); ok {
		info["version"] = s.o.Version
		if s.o.Version == "" {
			info["version"] = "0.0.0"
		}
	}
	describeProblems(document)
	schemas, err := knownSchemas()
	if err != nil {
		return nil, err
	}
	paths := map[string]map[string]any{}
	for _, r := range routes {
		var operation map[string]any
		if err := readOperation(r.operation, &operation); err != nil {
			return nil, err
		}
		if r.view != nil {
			describeView(operation, r.view, schemas)
			describeWatch(operation, r.view)
		}
		if paths[r.path] == nil {
			paths[r.path] = map[string]any{}
		}
		paths[r.path][strings.ToLower(r.method)] = operation
	}
	document["paths"] = paths
	text, err := json.Marshal(document)
	if err != nil {
		return nil, fmt.Errorf("write the OpenAPI document: %w", err)
	}
	return text, nil
}

// describeProblems adds status and title to what document.json says of each kind.
func describeProblems(document map[string]any) {
	list, _ := document["x-problems"].([]any)
	for _, item := range list {
		about, _ := item.(map[string]any)
		name, _ := about["kind"].(string)
		about["status"], about["title"] = kind(name).about()
	}
}

// readOperation reads one file of the document.
func readOperation(name string, into any) error {
	text, err := operations.ReadFile("openapi/" + name + ".json")
	if err != nil {
		return fmt.Errorf("read the OpenAPI operation: %w", err)
	}
	if err := json.Unmarshal(text, into); err != nil {
		return fmt.Errorf("read openapi/%s.json: %w", name, err)
	}
	return nil
}

// knownSchemas returns the schema of what a query gives, for the queries of the
// built-in views. Another app's views are any JSON.
func knownSchemas() (map[string]string, error) {
	mythic, err := view.Parse("mythic.yaml", view.Mythic(), func(string) (string, bool) { return "", false })
	if err != nil {
		return nil, fmt.Errorf("read the built-in views: %w", err)
	}
	schemas := map[string]string{}
	for name, schema := range map[string]string{"user_books": "Books", "run_status": "Status"} {
		if v, ok := mythic.Lookup(name); ok {
			schemas[v.Load] = "#/components/schemas/" + schema
		}
	}
	return schemas, nil
}

// describeView completes the operation that all views share.
func describeView(operation map[string]any, v *view.View, schemas map[string]string) {
	title := strings.ReplaceAll(v.Name, "_", " ")
	operation["operationId"] = "get_" + v.Name
	operation["summary"] = strings.ToUpper(title[:1]) + title[1:]
	kept := "Fresh for " + spell(v.TTL)
	if v.HTTP.Key == view.Caller {
		operation["description"] = "The caller's own entry. " + kept + ", dropped as soon as it changes."
		operation["security"] = []any{map[string]any{"user": []any{}}, map[string]any{"app": []any{}}, map[string]any{"gateway": []any{}}}
	} else {
		operation["description"] = "An entry that belongs to somebody is 404 for everybody else. " + kept + ", dropped as soon as it changes."
		parameters, _ := operation["parameters"].([]any)
		operation["parameters"] = append([]any{map[string]any{
			"name": v.HTTP.Key, "in": "path", "required": true,
			"description": "key of the entry: " + strings.Join(v.Key, ":"),
			"schema":      map[string]any{"type": "string", "minLength": 1, "maxLength": 512},
		}}, parameters...)
	}
	ref, known := schemas[v.Load]
	schema := map[string]any{}
	if known {
		schema["$ref"] = ref
	}
	responses, _ := operation["responses"].(map[string]any)
	found, _ := responses["200"].(map[string]any)
	if found != nil {
		found["content"] = map[string]any{"application/json": map[string]any{"schema": schema}}
	}
}

// spell writes 30m for what String calls 30m0s.
func spell(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}
