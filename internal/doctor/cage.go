package doctor

import (
	"strings"

	"github.com/keepout-security/keepout/internal/health"
	"github.com/keepout-security/keepout/internal/sandbox"
)

// checkCages says by which layers each running provider is confined.
func checkCages(f *facts) []Finding {
	n := notes{section: Cage}
	if f.status == nil {
		return nil // checkCore has said so
	}
	const fix = "docs/threat-model.md says what each layer needs and stops"
	for i := range f.status.Providers {
		p := &f.status.Providers[i]
		if p.PID == 0 {
			continue // the proof says that it does not run
		}
		c := &p.Confinement
		title := p.ID + " " + layers(c)
		switch {
		case len(c.Layers) == 0 || c.Weak():
			n.warning("cage", "KO-1304", title, fix).Provider = p.ID
		case c.Reduced: // the other layers make up for it
			n.add(Finding{
				Check: "cage", Severity: health.Info, Code: "KO-1304", Title: title, Fix: fix, Provider: p.ID,
			})
		default:
			n.ok("cage", title).Provider = p.ID
		}
	}
	return n.all
}

// layers is a cage in words: what holds, what holds in part, and what does not, with the reasons.
func layers(c *sandbox.Confinement) string {
	var on, partly, off []string
	for _, l := range c.Layers {
		because := l.Name
		if l.Why != "" {
			because += " (" + l.Why + ")"
		}
		switch {
		case !l.Holds:
			off = append(off, because)
		case l.Why != "":
			partly = append(partly, because)
		default:
			on = append(on, l.Name)
		}
	}
	some := "in part by "
	if len(on) == 0 {
		some = "confined in part by "
	}
	var parts []string
	for _, part := range []struct {
		words string
		names []string
	}{{"confined by ", on}, {some, partly}, {"without ", off}} {
		if len(part.names) > 0 {
			parts = append(parts, part.words+list(part.names))
		}
	}
	if len(on)+len(partly) == 0 {
		parts = append([]string{"not confined"}, parts...)
	}
	return "is " + strings.Join(parts, "; ")
}

// list joins words as in a sentence.
func list(words []string) string {
	if n := len(words); n > 1 {
		return strings.Join(words[:n-1], ", ") + " and " + words[n-1]
	}
	return strings.Join(words, "")
}
