//go:build linux

package arming

import (
	"bytes"
	"os"
	"regexp"
	"strings"
)

// consoleParameter is a parameter that needs no quotes in a loader's configuration.
var consoleParameter = regexp.MustCompile(`^console=[A-Za-z0-9,/._:-]{1,64}$`)

// quiet begins the parameters of the recovery environment's kernel.
const quiet = "quiet loglevel=3"

// withConsoles makes a loader's entries of the recovery environment name the consoles of the system that runs: where
// people look at a serial line, it tells its story there, too.
func (p *planner) withConsoles(entries []byte) []byte {
	line, err := os.ReadFile(p.at("/proc/cmdline"))
	if err != nil {
		return entries
	}
	var consoles strings.Builder
	for field := range strings.FieldsSeq(string(line)) {
		if consoleParameter.MatchString(field) {
			consoles.WriteString(field + " ")
		}
	}
	return bytes.ReplaceAll(entries, []byte(quiet), []byte(consoles.String()+quiet))
}
