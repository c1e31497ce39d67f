// Package meshv1 is the control plane's API, generated from the schema beside it.
package meshv1

import _ "embed" // for the document below

//go:embed mesh.swagger.json
var openAPI []byte

// OpenAPI returns the OpenAPI 2.0 document of the REST API, generated from the
// schema. Do not change it.
func OpenAPI() []byte { return openAPI }
