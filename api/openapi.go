package api

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"

	"github.com/danielgtaylor/huma/v2"
)

var errorType = reflect.TypeFor[Error]()

func itoa(n int) string { return strconv.Itoa(n) }

func openAPIConfig(version string) huma.Config {
	c := huma.DefaultConfig("kith local API", version)
	c.OpenAPIPath, c.DocsPath, c.SchemasPath = "", "", "" // served by our own route; the page would load from elsewhere
	c.CreateHooks = nil                                   // no $schema links in answers
	c.Info.Description = "What a kith node's owner and the kith command can ask of it. Errors are RFC 9457 problems with a reason and a hint."
	c.Info.License = &huma.License{Name: "Apache-2.0", Identifier: "Apache-2.0"}
	c.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		"token": {Type: "http", Scheme: "bearer", Description: "The token in the node's home; `kith token` prints it."},
	}
	c.Security = []map[string][]string{{"token": {}}}
	return c
}

func openAPIJSON(doc *huma.OpenAPI) ([]byte, error) {
	b, err := json.MarshalIndent(doc, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("api: OpenAPI document: %w", err)
	}
	return append(b, '\n'), nil
}
