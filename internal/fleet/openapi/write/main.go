// Command write turns a compiled .proto file on standard input into an OpenAPI document on standard output.
package main

import (
	"fmt"
	"io"
	"os"

	"github.com/keepout-security/keepout/internal/fleet/openapi"
)

func main() {
	in, err := io.ReadAll(os.Stdin)
	if err == nil {
		var out []byte
		if out, err = openapi.Generate(in); err == nil {
			_, err = os.Stdout.Write(out)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "openapi:", err)
		os.Exit(1)
	}
}
