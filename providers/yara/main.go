//go:build cgo && yara

package main

import "github.com/keepout-security/keepout/provider"

func main() { provider.Main(newEngine(new(judge))) }
