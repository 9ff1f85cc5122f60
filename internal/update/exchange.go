package update

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/keepout-security/keepout/internal/durable"
	"github.com/keepout-security/keepout/internal/rollback"
)

// Folders below a host's state directory, and the files in them.
const (
	StagingDir = "staging" // the fetcher's to write
	ReportDir  = "report"  // the core's to write
	OutboxDir  = "outbox"  // sealed diagnostics, root's to write, the fetcher's to send
	OrdersFile = "orders.json"
	ReportFile = "report.json"
	// OperatorDir, VendorsDir and the OCI blobs are laid out in the staging folder as in every source.
	OperatorDir = "operator"
	VendorsDir  = "vendors"
)

// FetchUser is the user and group of keepout-fetch where nobody names another: below those of the providers.
const FetchUser = 64_900

// Bounds of an exchange.
const (
	MaxOrders = 64
	maxGrants = 64
	// MaxTroubles is how many vendors can be in trouble: as many as an operator may name.
	MaxTroubles = 16
	MaxBuckets  = 32      // of crashes and the like, and as many of denials
	maxFile     = 1 << 20 // bytes of either file
	exchange    = 1       // version of both files
)

// Act says what an order wants.
type Act string

// The acts.
const (
	Stage    Act = "stage"
	RollBack Act = "roll-back"
)

// Orders is what the fetcher brought. Nothing of it is believed before it was verified.
type Orders struct {
	Version int      `json:"version"`
	Orders  []Order  `json:"orders"`
	Grants  [][]byte `json:"grants,omitempty"` // sealed by the director
	// Troubles says why not all of what was to be brought is there, for people.
	Troubles []Trouble `json:"troubles,omitempty"`
}

// Trouble is why not all of what one vendor publishes could be fetched. It is the fetcher's word, and nothing but words
// come of it.
type Trouble struct {
	Vendor string `json:"vendor"` // the operator's name for it
	Why    string `json:"why"`
}

// Order names one package.
type Order struct {
	Act      Act           `json:"act"`
	Rollout  string        `json:"rollout,omitempty"`
	Provider string        `json:"provider"`
	Part     rollback.Part `json:"part"`
	Vendor   string        `json:"vendor,omitempty"` // the operator's name for it
	Path     string        `json:"path,omitempty"`   // as "acme-edr/content/77"
	Digest   string        `json:"digest,omitempty"` // of the package; with roll-back, what to leave is all else
	Reason   string        `json:"reason,omitempty"`
	// Lacking says, with roll-back, why the package could not be fetched. Vendor and Path say whose it is where it was.
	Lacking string `json:"lacking,omitempty"`
}

// Report is what the core says. Field names are stable.
type Report struct {
	Version int `json:"version"`
	// Core is made anew when a core starts: counts begin again then.
	Core      string      `json:"core"`
	Installed []Installed `json:"installed"`
	Asks      []Ask       `json:"asks,omitempty"`
	Counters  []Counters  `json:"counters,omitempty"`
	Buckets   []Bucket    `json:"buckets,omitempty"`
	Refused   []Refused   `json:"refused,omitempty"`
}

// Installed is one version that the host has.
type Installed struct {
	Provider string        `json:"provider"`
	Part     rollback.Part `json:"part"`
	Slot     string        `json:"slot"`
	Digest   string        `json:"digest"` // of its package; of its files where it came in none
	Release  uint64        `json:"release,omitempty"`
	Healthy  bool          `json:"healthy,omitempty"`
}

// Has reports whether a slot other than the candidate's holds a package.
func (r *Report) Has(provider string, part rollback.Part, digest string) bool {
	return slices.ContainsFunc(r.Installed, func(i Installed) bool {
		return i.Provider == provider && i.Part == part && i.Digest == digest && i.Slot != "candidate"
	})
}

// Ask is a package that is verified and would be used now, with a grant for this nonce.
type Ask struct {
	Rollout string `json:"rollout"`
	Digest  string `json:"digest"`
	Nonce   []byte `json:"nonce"`
}

// Counters count what one provider did with these versions, since the core started. They begin anew when other versions
// become active.
type Counters struct {
	Provider string `json:"provider"`
	Engine   string `json:"engine,omitempty"` // that run; in a boot after trouble, not what is active
	Content  string `json:"content,omitempty"`
	Verdicts uint64 `json:"verdicts"` // votes in time
	Timeouts uint64 `json:"timeouts"` // votes that were late, a candidate's among them
	Denies   uint64 `json:"denies"`   // votes that said DENY, a candidate's among them that the active version lets pass
	Critical uint64 `json:"critical"` // of these, about files that the distribution's packages own

	Minutes float64 `json:"minutes"` // that its processes ran
	CPU     float64 `json:"cpu"`     // seconds on processors
	Memory  uint64  `json:"memory"`  // bytes, the most so far
	P99     float64 `json:"p99"`     // of the time of a vote, in seconds, in the last minute that had votes
}

// Refused says why a package that was ordered is not used.
type Refused struct {
	Digest string `json:"digest"`
	Why    string `json:"why"`
}

// readJSON reads one file of an exchange; one that is not there is ErrNotExist.
func readJSON(dir fs.FS, name string, v any) error {
	f, err := dir.Open(name)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // only read
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	switch {
	case err != nil:
		return fmt.Errorf("read %s: %w", name, err)
	case len(text) > maxFile:
		return fmt.Errorf("%s has more than %d bytes", name, maxFile)
	}
	if err := json.Unmarshal(text, v); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// ReadOrders reads and bounds what the fetcher wrote.
func ReadOrders(staging fs.FS) (Orders, error) {
	var o Orders
	err := readJSON(staging, OrdersFile, &o)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Orders{}, nil
	case err != nil:
		return Orders{}, err
	case o.Version != exchange:
		return Orders{}, fmt.Errorf("%s has version %d, want %d", OrdersFile, o.Version, exchange)
	case len(o.Orders) > MaxOrders || len(o.Grants) > maxGrants || len(o.Troubles) > MaxTroubles:
		return Orders{}, fmt.Errorf("%s has more than %d orders, %d grants or %d vendors in trouble", OrdersFile, MaxOrders,
			maxGrants, MaxTroubles)
	}
	return o, nil
}

// WriteOrders replaces the orders in a staging folder, durably: an order to go back must hold after a power cut, when
// there may be no network to bring it again. Orders that are there already are not written once more. Once it returns
// nil, no power cut brings back an earlier list: what only that names may be removed.
func WriteOrders(dir string, o *Orders) error { return writeOrders(durable.OS(), dir, o) }

func writeOrders(disk durable.Disk, dir string, o *Orders) error {
	o.Version = exchange
	text, err := json.Marshal(o)
	if err != nil {
		return fmt.Errorf("write %s: %w", OrdersFile, err)
	}
	path := filepath.Join(dir, OrdersFile)
	if holds(disk, path, text) {
		// They come again and again: whoever asks every ten seconds must not keep the disk busy. But their name may not be
		// durable, where an earlier call came no further; and to sync a folder that is clean costs next to nothing.
		return disk.SyncDir(dir)
	}
	return durable.WriteFileOn(disk, path, text, 0o644)
}

// holds reports whether a file can be read and has exactly this content.
func holds(disk durable.Disk, path string, content []byte) bool {
	f, err := disk.Open(path)
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }() // only read
	text, err := io.ReadAll(io.LimitReader(f, int64(len(content))+1))
	return err == nil && bytes.Equal(text, content)
}

// ReadReport reads what the core wrote; a core that wrote none yet is ErrNotExist.
func ReadReport(dir string) (Report, error) {
	var r Report
	if err := readJSON(os.DirFS(dir), ReportFile, &r); err != nil {
		return Report{}, err
	}
	if r.Version != exchange {
		return Report{}, fmt.Errorf("%s has version %d, want %d", ReportFile, r.Version, exchange)
	}
	return r, nil
}

// WriteReport replaces the report. A reader finds it whole; it is made again after a power cut and every AliveEvery, so
// that nothing waits for the disk.
func WriteReport(dir string, r *Report) error {
	r.Version = exchange
	path := filepath.Join(dir, ReportFile)
	text, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	next := path + ".next"
	if err := os.WriteFile(next, text, 0o644); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(next, path); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// Alive is how old a report may be: a core writes one at least every AliveEvery.
const (
	AliveEvery = 10 * time.Second
	Alive      = time.Minute
)

// Stale reports whether a report is so old that no core can be running. A clock that was set back makes none stale.
func Stale(dir string, now time.Time) bool {
	info, err := os.Stat(filepath.Join(dir, ReportFile))
	return err == nil && now.Sub(info.ModTime()) > Alive
}

// News reports whether a report says what a reader should know at once, after another one: all but counts of what goes
// on all the time.
func (r *Report) News(before *Report) bool {
	if r.Core != before.Core || !slices.Equal(r.Installed, before.Installed) ||
		!slices.Equal(r.Buckets, before.Buckets) || !slices.Equal(r.Refused, before.Refused) ||
		len(r.Counters) != len(before.Counters) || !slices.EqualFunc(r.Asks, before.Asks, Ask.equal) {
		return true
	}
	for i, c := range r.Counters {
		was := &before.Counters[i]
		if c.Provider != was.Provider || c.Engine != was.Engine || c.Content != was.Content ||
			c.Timeouts != was.Timeouts || c.Denies != was.Denies || c.Critical != was.Critical {
			return true
		}
	}
	return false
}

func (a Ask) equal(b Ask) bool {
	return a.Rollout == b.Rollout && a.Digest == b.Digest && bytes.Equal(a.Nonce, b.Nonce)
}
