// Package config reads Keepout's YAML files strictly: the daemon's configuration and the providers' manifests.
//
// An unknown key, a wrong type or an impossible value is refused with file, line, column and the fix; so is what
// could exhaust the reader: anchors, aliases, deep nesting, a file over 1 MiB. Nothing is taken from environment
// variables. Defaults are in one place, Default.
package config
