// Package fleetpb is the API of the control plane, generated from internal/fleet/fleet.proto by make generate.
package fleetpb

import _ "embed"

//go:embed openapi.json
var openAPI []byte

// OpenAPI is the API as an OpenAPI 3.1 document.
func OpenAPI() []byte { return openAPI }
