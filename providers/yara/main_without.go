//go:build !(cgo && yara)

package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "keepout-yara", version)
	fmt.Fprintln(os.Stderr, "built without cgo: install libyara-dev and gcc, then make build")
	os.Exit(1)
}
