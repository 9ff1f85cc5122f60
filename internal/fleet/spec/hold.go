package spec

import (
	"fmt"
	"regexp"
	"time"

	"github.com/keepout-security/keepout/internal/fleet/fleetpb"
	"github.com/keepout-security/keepout/internal/rollout"
)

// Hold keeps hosts from activating anything new. Of several that fit a host, all hold. It is stored as JSON, and read
// from files as YAML.
type Hold struct {
	Name     string            `json:"name" yaml:"name"`
	Labels   map[string]string `json:"labels,omitempty" yaml:"labels"` // hosts with all of these
	Hosts    []string          `json:"hosts,omitempty" yaml:"hosts"`   // and these, by id
	Paused   bool              `json:"paused,omitempty" yaml:"paused"`
	Freezes  []Freeze          `json:"freezes,omitempty" yaml:"freezes"`
	Previous bool              `json:"previous,omitempty" yaml:"previous"` // one release behind
	// Alert is after how many hours of waiting somebody is told; 0: nobody.
	Alert  uint32 `json:"alert_hours,omitempty" yaml:"alert_hours"`
	Reason string `json:"reason" yaml:"reason"`
}

// Bounds of a hold.
const (
	maxHoldHosts = 1000
	maxAlert     = 24 * 366
)

var holdName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,63}$`)

// Check says what is wrong with a hold, as a *Problem.
func (h *Hold) Check() error {
	switch {
	case !holdName.MatchString(h.Name):
		return &Problem{"name", "a-z, 0-9 and -, at most 64"}
	case len(h.Labels) == 0 && len(h.Hosts) == 0:
		return &Problem{"labels", "say which hosts: labels, or ids in hosts"}
	case len(h.Hosts) > maxHoldHosts:
		return &Problem{"hosts", fmt.Sprintf("at most %d; give the hosts a label", maxHoldHosts)}
	case len(h.Labels) > maxHoldHosts:
		return &Problem{"labels", fmt.Sprintf("at most %d", maxHoldHosts)}
	case !h.Paused && !h.Previous && len(h.Freezes) == 0:
		return &Problem{"paused", "it holds nothing: paused, previous or freezes"}
	case h.Alert > maxAlert:
		return &Problem{"alert_hours", fmt.Sprintf("at most %d", maxAlert)}
	case h.Reason == "" || len(h.Reason) > maxHoldHosts:
		return &Problem{"reason", fmt.Sprintf("say why, in at most %d bytes", maxHoldHosts)}
	case len(h.Freezes) > maxFreezes:
		return &Problem{"freezes", fmt.Sprintf("at most %d", maxFreezes)}
	}
	_, err := windows(h.Freezes)
	return err
}

// windows turns freezes into times.
func windows(list []Freeze) (out []rollout.Window, err error) {
	for i, f := range list {
		from, err := time.Parse(time.RFC3339, f.From)
		if err != nil {
			return nil, &Problem{fmt.Sprintf("freezes[%d].from", i), "a time like 2026-12-24T00:00:00Z"}
		}
		to, err := time.Parse(time.RFC3339, f.To)
		if err != nil || !to.After(from) {
			return nil, &Problem{fmt.Sprintf("freezes[%d].to", i), "a time like 2026-12-24T00:00:00Z, after from"}
		}
		out = append(out, rollout.Window{From: from, To: to, Note: f.Reason})
	}
	return out, nil
}

// AddTo makes a customer want what the hold wants, too. Check has passed.
func (h *Hold) AddTo(c *rollout.Customer) {
	c.Paused = c.Paused || h.Paused
	more, _ := windows(h.Freezes)
	c.Freeze = append(c.Freeze, more...)
	if age := time.Duration(h.Alert) * time.Hour; age > 0 && (c.MaxAge == 0 || age < c.MaxAge) {
		c.MaxAge = age
	}
}

// HoldFromPB reads a request's hold.
func HoldFromPB(m *fleetpb.Hold) Hold {
	h := Hold{
		Name: m.GetName(), Labels: m.GetLabels(), Hosts: m.GetHosts(), Paused: m.GetPaused(), Previous: m.GetPrevious(),
		Alert: m.GetAlertHours(), Reason: m.GetReason(),
	}
	for _, f := range m.GetFreezes() {
		h.Freezes = append(h.Freezes, Freeze{From: f.GetFrom(), To: f.GetTo(), Reason: f.GetReason()})
	}
	return h
}

// PB is the hold as an answer has it.
func (h *Hold) PB() *fleetpb.Hold {
	out := &fleetpb.Hold{
		Name: h.Name, Labels: h.Labels, Hosts: h.Hosts, Paused: h.Paused, Previous: h.Previous, AlertHours: h.Alert,
		Reason: h.Reason,
	}
	for _, f := range h.Freezes {
		out.Freezes = append(out.Freezes, &fleetpb.Freeze{From: f.From, To: f.To, Reason: f.Reason})
	}
	return out
}
