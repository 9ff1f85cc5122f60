// Package docs carries those of the documents that a command prints, as they were when it was built.
package docs

import _ "embed"

// Errors is errors.md: the table of all KO codes.
//
//go:embed errors.md
var Errors string
