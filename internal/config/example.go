package config

import _ "embed"

// Example is a commented configuration with every key and its default. A test holds that it is accepted and that
// it names every key.
//
//go:embed example.yaml
var Example string
