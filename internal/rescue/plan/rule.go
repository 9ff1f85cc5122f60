package plan

import (
	"slices"

	"github.com/keepout-security/keepout/internal/boot"
)

// localSource is who the boot state names for what the local rule ordered.
const localSource = "local-rule"

// Rule is what a machine does that must help itself, the mildest remedy first that has not been tried: start without
// the provider that was starting when it failed; start with last-known-good content; start without third-party
// security. A provider that had come up and voted before the machine failed is no suspect.
func Rule(f Facts, why string) Remedy {
	r := Remedy{Source: Local, Why: why, Orders: boot.Orders{Source: localSource}}
	suspect := f.Suspect.Provider
	switch {
	case suspect != "" && !f.Suspect.Ready && !slices.Contains(f.Orders.Disabled, suspect):
		r.Orders.Disabled = []string{suspect}
		r.Orders.Reason = "it was starting when the machine failed"
	case f.Visits <= 1 && f.Orders.None():
		r.Orders, r.Mode = boot.Orders{}, boot.LastKnownGood
	default:
		r.Orders.Safe = true
		r.Orders.Reason = "nothing milder helped"
	}
	return r
}
