package boot

import (
	"encoding/json"
	"fmt"
	"time"
)

// Instruction is what bootguard tells the core about this boot, as JSON in boot.json in the run folder.
type Instruction struct {
	Version int    `json:"version"` // 1
	Boot    string `json:"boot"`    // the boot it is about; one of another boot is not in force
	Mode    Mode   `json:"mode"`    // Normal, LastKnownGood or Safe
	Attempt int    `json:"attempt"` // 1 when the boot before was good
	Reason  string `json:"reason,omitempty"`
	Menu    bool   `json:"menu,omitempty"`    // everything was tried; nothing reboots by itself any more
	Dir     string `json:"dir,omitempty"`     // Keepout's folder on the ESP or /boot, where crumbs go
	Trouble string `json:"trouble,omitempty"` // what bootguard could not do, or found damaged, for people
	// Uncounted says that the count of boots does not bound them: it could not be kept, or was lost and begun anew.
	// Nothing restarts this boot then, because that might never end.
	Uncounted bool `json:"uncounted,omitempty"`

	Good   bool   `json:"good,omitempty"` // this boot was judged good
	Orders Orders `json:"orders,omitzero"`
	Told   *Told  `json:"told,omitempty"` // a recent failure to start, nil where there is none
	// Suspect is what was being started when the last boot failed that starts anything; zero when that is not known, or
	// a boot was good since.
	Suspect Crumb `json:"suspect,omitzero"`
	// Recoveries counts visits to the recovery environment since the last good boot before this one.
	Recoveries int `json:"recoveries,omitempty"`
}

// Told is a recent failure to start, as status tells it until some time.
type Told struct {
	Code     string    `json:"code"`
	Title    string    `json:"title"`
	Fix      string    `json:"fix"`
	Provider string    `json:"provider,omitempty"`
	Until    time.Time `json:"until"`
}

// MaxInstruction bounds an instruction, in bytes.
const MaxInstruction = 32 << 10

const (
	maxReason = 512
	maxTold   = 2048
)

// ParseInstruction reads boot.json. The caller decides what to do without one: a machine without bootguard has none.
func ParseInstruction(data []byte) (Instruction, error) {
	var in Instruction
	if len(data) > MaxInstruction {
		return in, fmt.Errorf("%d bytes are too many", len(data))
	}
	if err := json.Unmarshal(data, &in); err != nil {
		return Instruction{}, err
	}
	switch {
	case in.Version != 1:
		return Instruction{}, fmt.Errorf("%w: %d", ErrVersion, in.Version)
	case !in.Mode.Valid() || in.Mode.rank() > Safe.rank():
		return Instruction{}, fmt.Errorf("%q is no mode of a running system", in.Mode)
	case in.Attempt < 0 || in.Recoveries < 0 || in.Suspect != in.Suspect.bound() ||
		len(in.Reason) > maxReason || len(in.Trouble) > maxReason,
		len(in.Orders.Disabled) > MaxNamed || len(in.Orders.LastKnownGood) > MaxNamed:
		return Instruction{}, fmt.Errorf("a value is out of range")
	case in.Told != nil && (len(in.Told.Title) > maxTold || len(in.Told.Fix) > maxTold):
		return Instruction{}, fmt.Errorf("the story of a failure is too long")
	}
	return in, nil
}

// Encode gives the bytes of boot.json. Texts that do not fit are shortened.
func (in Instruction) Encode() ([]byte, error) {
	in.Version = 1
	if in.Told != nil {
		t := *in.Told
		t.Title, t.Fix = t.Title[:min(len(t.Title), maxTold)], t.Fix[:min(len(t.Fix), maxTold)]
		in.Told = &t
	}
	in.Reason, in.Trouble = in.Reason[:min(len(in.Reason), maxReason)], in.Trouble[:min(len(in.Trouble), maxReason)]
	data, err := json.MarshalIndent(in, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode instruction: %w", err)
	}
	return append(data, '\n'), nil
}

// Disables reports whether a provider must not be started.
func (in *Instruction) Disables(provider string) bool {
	if in.Mode == Safe || in.Orders.Safe {
		return true
	}
	for _, name := range in.Orders.Disabled {
		if name == provider {
			return true
		}
	}
	return false
}

// Pins reports whether a provider must run its last-known-good versions.
func (in *Instruction) Pins(provider string) bool {
	if in.Mode == LastKnownGood {
		return true
	}
	for _, name := range in.Orders.LastKnownGood {
		if name == provider {
			return true
		}
	}
	return false
}
