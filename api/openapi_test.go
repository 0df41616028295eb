package api_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/kith-mesh/kith/api"
)

var update = flag.Bool("update", false, "rewrite golden files")

type docRoute struct{ method, path string }

// documented lists the routes of the OpenAPI document.
func documented(t *testing.T, s *api.Server) []docRoute {
	t.Helper()
	b, err := s.OpenAPI()
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Paths map[string]map[string]json.RawMessage
	}
	if err := json.Unmarshal(b, &doc); err != nil {
		t.Fatal(err)
	}
	var out []docRoute
	for path, methods := range doc.Paths {
		for m := range methods {
			out = append(out, docRoute{strings.ToUpper(m), path})
		}
	}
	slices.SortFunc(out, func(a, b docRoute) int { return strings.Compare(a.path+a.method, b.path+b.method) })
	return out
}

// The document is what it was: a change of the API is a change of this file.
func TestOpenAPIGolden(t *testing.T) {
	s, _ := newServer(t, nil)
	got, err := s.OpenAPI()
	if err != nil {
		t.Fatal(err)
	}
	const name = "testdata/openapi.json"
	if *update {
		if err := os.WriteFile(name, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Errorf("%s is stale: if the change is meant, run go test ./api -update", name)
	}
	if w := ask(t, s.Handler(), "GET", "/openapi.json", nil); w.Body.String() != string(got) {
		t.Error("the route serves another document")
	}
}

func TestOpenAPIDescribes(t *testing.T) {
	s, _ := newServer(t, nil)
	b, err := s.OpenAPI()
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		OpenAPI  string
		Security []map[string][]string
		Paths    map[string]map[string]struct {
			OperationID string
			Summary     string
			Security    *[]map[string][]string
			Parameters  []struct{ Name, In string }
			Responses   map[string]struct {
				Content map[string]struct{ Schema json.RawMessage }
			}
		}
	}
	if err := json.Unmarshal(b, &doc); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(doc.OpenAPI, "3.1") || len(doc.Security) != 1 {
		t.Errorf("version %q, security %v", doc.OpenAPI, doc.Security)
	}
	ids := map[string]bool{}
	for path, methods := range doc.Paths {
		for method, op := range methods {
			at := fmt.Sprintf("%s %s", method, path)
			if op.OperationID == "" || op.Summary == "" || ids[op.OperationID] {
				t.Errorf("%s: id %q (unique), summary %q", at, op.OperationID, op.Summary)
			}
			ids[op.OperationID] = true
			if _, ok := op.Responses["default"].Content["application/problem+json"]; !ok {
				t.Errorf("%s: no problem+json", at)
			}
			if open := path == "/healthz" || path == "/readyz"; open != (op.Security != nil && len(*op.Security) == 0) {
				t.Errorf("%s: security %v", at, op.Security)
			}
			for _, part := range strings.Split(path, "/") {
				if name, ok := strings.CutPrefix(part, "{"); ok {
					name = strings.TrimSuffix(name, "}")
					if !slices.ContainsFunc(op.Parameters, func(p struct{ Name, In string }) bool { return p.Name == name && p.In == "path" }) {
						t.Errorf("%s: parameter %s is not described", at, name)
					}
				}
			}
		}
	}
}
