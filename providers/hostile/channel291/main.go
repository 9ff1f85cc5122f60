// Command channel291 is a faithful replica of the defect behind Channel File 291, which stopped millions of Windows
// computers on 19 July 2024 (CrowdStrike, "External Technical Root Cause Analysis", 6 August 2024):
//
//   - the template type, compiled into the engine, declares 21 input fields (definition.go);
//   - the integration code that calls the interpreter supplies 20 (inputs.go);
//   - the interpreter does not compare the two, and has no bounds check of its own (interpret.go);
//   - a wildcard in the 21st field is never looked up, so tests and the first contents hid it;
//   - the validator checks content against the definition, not against what is supplied (validate.go).
//
// The first content with another criterion in the 21st field reads past the end of the inputs. There it was a kernel
// module, and the machine went down with it. Here it is a provider: Go's run-time check stands where the page fault
// was, ends the process, and nothing in this program catches it.
package main

import (
	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/provider"
)

func main() {
	e := &engine{}
	provider.Main(provider.Engine{
		Name: "channel291", Version: "7.11", Load: e.load, Vote: e.vote,
		Subscription: provider.Subscription{Events: []event.Type{event.Open, event.Exec}, Content: false},
	})
}
