package config

import (
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"time"

	"github.com/keepout-security/keepout/event"
)

// Config is the daemon's configuration file, version 1.
type Config struct {
	// Version of this format; 1.
	Version int `yaml:"version"`
	// Mode of the host: monitor lets everything pass and records what would be denied, enforce denies.
	Mode event.Mode `yaml:"mode"`
	// Watch names what is judged.
	Watch []Watch `yaml:"watch"`
	// Budgets are how long a provider may take to vote; at 80 % its failure policy votes for it.
	Budgets Budgets `yaml:"budgets"`
	// StallLimit is how long any open may be held if the core itself stops.
	StallLimit Duration `yaml:"stall_limit"`
	// KernelMemory lets the kernel answer for opens of unchanged objects that every provider has allowed, for some
	// seconds each; what that costs besides is in docs/limits.md.
	KernelMemory bool `yaml:"kernel_memory"`
	// Prescan shows a file to the providers when its writer closes it, so that the first who opens it need not wait. It
	// works in mode enforce, with the lowest priority, where votes are remembered.
	Prescan bool `yaml:"prescan"`
	// Quorum is how many unsure denials (confidence below 100 %) make one; 0 means each counts alone.
	Quorum int `yaml:"quorum"`
	// Vital adds paths to what no provider may ever deny.
	Vital []string `yaml:"vital"`
	// Updates says how a new engine or content comes into force.
	Updates Updates `yaml:"updates"`
	// Journal bounds the journal.
	Journal Journal `yaml:"journal"`
	// Providers lists who votes.
	Providers []Provider `yaml:"providers"`
}

// Watch is one watched path.
type Watch struct {
	// Path whose file system is marked; only what lies under it is judged.
	Path string `yaml:"path"`
	// Events seen there: open, exec, close-write, create, rename, delete. Default: open and exec.
	Events []string `yaml:"events"`

	types []event.Type
}

// Types returns the events as types. Preconditions: the configuration was checked.
func (w Watch) Types() []event.Type { return w.types }

// Budgets are how long a provider may take.
type Budgets struct {
	// Metadata is for a vote without the content, 1ms to 10s.
	Metadata Duration `yaml:"metadata"`
	// Content is for a vote with the descriptor, 1ms to 10s.
	Content Duration `yaml:"content"`
}

// Journal bounds the journal on disk.
type Journal struct {
	// FileSize is when a file is closed and the next begun, 64KiB to 1GiB.
	FileSize Size `yaml:"file_size"`
	// Files is how many are kept, 2 to 1000.
	Files int `yaml:"files"`
	// Record says what is written: notable (everything but allowed opens) or all.
	Record string `yaml:"record"`
}

// Provider is one provider's entry.
type Provider struct {
	// ID names the folder under the providers' directory.
	ID string `yaml:"id"`
	// Mode: enforce votes, audit is only recorded and never waited for.
	Mode event.Mode `yaml:"mode"`
	// OnFailure is what a missing vote counts as: allow (default) or deny.
	OnFailure string `yaml:"on_failure"`
	// OnMiss is passed to providers with lists: what an unknown object gets, allow or deny.
	OnMiss string `yaml:"on_miss"`
	// Content is the path of its signatures, rules or lists; its user must be able to read it.
	Content string `yaml:"content"`
	// Limits are at most what its manifest asks for.
	Limits Limits `yaml:"limits"`
	// Grants is what it may have of what its manifest asks for; where a key is missing, only what is harmless.
	Grants Allowed `yaml:"grants"`
	// Settings are passed to the provider; its manifest names the keys.
	Settings map[string]string `yaml:"settings"`
}

// Limits bound one provider.
type Limits struct {
	Memory    Size    `yaml:"memory"`    // private memory, for example 256MiB
	CPU       Percent `yaml:"cpu"`       // of one processor, for example 50%
	Processes uint64  `yaml:"processes"` // processes and threads
	Files     uint64  `yaml:"fds"`       // open descriptors
	State     Size    `yaml:"state"`     // in its state folder, on disk; default: 64MiB
	Log       Size    `yaml:"log"`       // kept of what it writes to standard error, on disk; default: 256KiB
}

// Defaults of limits that always hold.
const (
	defaultState = 64 << 20
	defaultLog   = 256 << 10
)

// HardLimit bounds every budget.
const HardLimit = 10 * time.Second

// Default holds every default number of the configuration.
func Default() Config {
	return Config{
		Version: 1, Mode: event.Monitor, StallLimit: Duration(time.Second), KernelMemory: true, Prescan: true,
		Budgets: Budgets{Metadata: Duration(50 * time.Millisecond), Content: Duration(2 * time.Second)},
		Journal: Journal{FileSize: 16 << 20, Files: 8, Record: "notable"}, Updates: defaultUpdates(),
	}
}

// Load reads and checks a configuration file. It does not look at the providers; Resolve does.
func Load(path string) (*Loaded, error) {
	c := Default()
	d, err := decodeFile(path, CodeSyntax, &c)
	if err != nil {
		return nil, err
	}
	return checked(d, c)
}

// Parse is Load on bytes; name is used in errors.
func Parse(name string, b []byte) (*Loaded, error) {
	c := Default()
	d, err := decode(name, CodeSyntax, b, &c)
	if err != nil {
		return nil, err
	}
	return checked(d, c)
}

// Loaded is a checked configuration that remembers where its parts stand.
type Loaded struct {
	Config
	doc *document
}

// Codes of this package's errors; docs/errors.md.
const (
	CodeSyntax     = "KO-1001"
	CodeValue      = "KO-1002"
	CodeProvider   = "KO-1003"
	CodeExecutable = "KO-1004"
	CodeDigest     = "KO-1005"
	CodeManifest   = "KO-1006"
	CodeGrant      = "KO-1008"
)

func checked(d *document, c Config) (*Loaded, error) {
	l := &Loaded{Config: c, doc: d}
	var errs []error
	bad := func(path, fix, format string, args ...any) {
		if len(errs) < maxErrors {
			errs = append(errs, d.at(path, CodeValue, fmt.Sprintf(format, args...), fix))
		}
	}
	if c.Version != 1 {
		bad("$.version", "write version: 1", "version %d is not known", c.Version)
	}
	if c.Mode != event.Monitor && c.Mode != event.Enforce {
		bad("$.mode", "write mode: monitor or mode: enforce", "mode %q is not known", c.Mode)
	}
	for _, b := range []struct {
		name string
		v    Duration
	}{{"metadata", c.Budgets.Metadata}, {"content", c.Budgets.Content}} {
		if b.v < Duration(time.Millisecond) || b.v > Duration(HardLimit) {
			bad("$.budgets."+b.name, "choose 1ms to 10s", "%s budget %v is out of range", b.name, time.Duration(b.v))
		}
	}
	if v := time.Duration(c.StallLimit); v < 100*time.Millisecond || v > time.Minute {
		bad("$.stall_limit", "choose 100ms to 1m", "stall_limit %v is out of range", v)
	}
	if c.Quorum < 0 || c.Quorum > len(c.Providers) {
		bad("$.quorum", "choose 0 up to the number of providers", "quorum %d can never be met", c.Quorum)
	}
	if j := c.Journal; j.FileSize < 64<<10 || j.FileSize > 1<<30 || j.Files < 2 || j.Files > 1000 {
		bad("$.journal", "choose file_size 64KiB to 1GiB and files 2 to 1000", "journal bounds are out of range")
	}
	if c.Journal.Record != "notable" && c.Journal.Record != "all" {
		bad("$.journal.record", "write notable or all", "record %q is not known", c.Journal.Record)
	}
	for i, v := range c.Vital {
		if !filepath.IsAbs(v) {
			bad(fmt.Sprintf("$.vital[%d]", i), "write an absolute path", "vital path %q is relative", v)
		}
	}
	l.Updates.check(bad)
	l.checkWatches(bad)
	l.checkProviders(bad)
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return l, nil
}

// refusal notes one error.
type refusal func(path, fix, format string, args ...any)

func (l *Loaded) checkWatches(bad refusal) {
	for i := range l.Watch {
		w := &l.Watch[i]
		if !filepath.IsAbs(w.Path) {
			bad(fmt.Sprintf("$.watch[%d].path", i), "write an absolute path", "watched path %q is not absolute", w.Path)
		}
		if len(w.Events) == 0 {
			w.types = []event.Type{event.Open, event.Exec}
		}
		for j, word := range w.Events {
			t, err := event.ParseType(word)
			if err != nil {
				bad(fmt.Sprintf("$.watch[%d].events[%d]", i, j), "choose one of the known events", "%v", err)
				continue
			}
			w.types = append(w.types, t)
		}
	}
}

var idPattern = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,31}$`)

func (l *Loaded) checkProviders(bad refusal) {
	seen := map[string]bool{}
	for i := range l.Providers {
		p := &l.Providers[i]
		at := fmt.Sprintf("$.providers[%d]", i)
		if !idPattern.MatchString(p.ID) {
			bad(at+".id", "use 1 to 32 of a-z, 0-9 and -", "provider id %q is not valid", p.ID)
		}
		if seen[p.ID] {
			bad(at+".id", "remove one of the entries", "provider %q is listed twice", p.ID)
		}
		seen[p.ID] = true
		if p.Mode == "" {
			p.Mode = event.Audit
		}
		if p.Mode != event.Audit && p.Mode != event.Enforce {
			bad(at+".mode", "write mode: audit or mode: enforce", "mode %q is not a provider's mode", p.Mode)
		}
		for _, word := range []struct{ key, v string }{{"on_failure", p.OnFailure}, {"on_miss", p.OnMiss}} {
			if word.v != "" && word.v != "allow" && word.v != "deny" {
				bad(at+"."+word.key, "write allow or deny", "%s %q is not known", word.key, word.v)
			}
		}
		p.Grants.check(at+".grants", bad)
		if p.Content != "" && !filepath.IsAbs(p.Content) {
			bad(at+".content", "write an absolute path", "content %q is relative", p.Content)
		}
	}
	if len(l.Providers) > maxProviders {
		bad("$.providers", "remove some", "%d providers, limit %d", len(l.Providers), maxProviders)
	}
}

// maxProviders is how many providers may be configured.
const maxProviders = 16
