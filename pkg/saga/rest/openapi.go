package rest

import _ "embed" // for the document below

//go:embed openapi.json
var openAPI []byte

// OpenAPI returns the OpenAPI 2.0 document of this API, which is written by hand: what JSON may be is said by the checks of a
// definition, which know more than types. Do not change it.
func OpenAPI() []byte { return openAPI }
