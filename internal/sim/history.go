package sim

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"github.com/keepout-security/keepout/internal/durable"
	"github.com/keepout-security/keepout/internal/health"
	"github.com/keepout-security/keepout/internal/rollback"
	"github.com/keepout-security/keepout/internal/store"
)

type problem = health.Problem

func providers() []string { return []string{"acme-edr", "hashlist"} }

// History is a platform that does what platforms do with a store: it boots, imports, promotes, rolls back and
// collects, drawn from a seed.
type History struct {
	Disk   durable.Disk
	Dir    string // of the store
	Rand   *rand.Rand
	Ledger *Ledger
	// Report, if set, is told each state before it is committed and after it was.
	Report func(st rollback.State, committed bool) error

	store  *store.Store
	states map[string]rollback.State
	now    time.Time
	serial int
}

// NewHistory returns one that has not booted.
func NewHistory(disk durable.Disk, dir string, rng *rand.Rand) *History {
	return &History{
		Disk: disk, Dir: dir, Rand: rng, Ledger: NewLedger(), now: time.Unix(1_700_000_000, 0).UTC(),
	}
}

// On returns the same platform on the disk as it is after a cut.
func (h *History) On(disk durable.Disk) *History {
	next := *h
	next.Disk, next.store, next.states = disk, nil, nil
	return &next
}

// Archive makes a small package.
func Archive(part rollback.Part, content string) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	add := func(name string, mode int64, text string) {
		err := w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: mode, Size: int64(len(text))})
		if err == nil {
			_, err = w.Write([]byte(text))
		}
		if err != nil {
			panic(err) // into memory, of a size that was just told
		}
	}
	if part == rollback.Engine {
		add("provider.yaml", 0o644, "version: 1\n")
		add("engine", 0o755, "\x7fELF "+content)
	} else {
		add("deny.txt", 0o644, content)
		add("more/extra.txt", 0o600, content+" in a folder")
	}
	if err := w.Close(); err != nil {
		panic(err) // as above
	}
	return b.Bytes()
}

// take imports a package whose label and content are drawn by number.
func (h *History) take(part rollback.Part, label string) (rollback.Version, error) {
	p, err := h.store.ImportArchive(part, label, bytes.NewReader(Archive(part, label)))
	return rollback.Version{Digest: p.Digest, Label: label, Origin: "simulation"}, err
}

// Boot opens the store, judges what it finds, installs what came with the installation, and resumes every provider.
// An error that wraps ErrWrong is a broken promise; any other one is the disk's.
func (h *History) Boot() error {
	h.now = h.now.Add(time.Duration(h.Rand.IntN(3600)) * time.Second)
	h.states = map[string]rollback.State{}
	var err error
	c := store.Config{Dir: h.Dir, Disk: h.Disk, Now: func() time.Time { return h.now }}
	if h.store, err = store.Open(c); err != nil {
		return err
	}
	if err := h.Ledger.Found(h.store); err != nil {
		return wrong(err)
	}
	for _, id := range providers() {
		engine, err := h.take(rollback.Engine, id+" 1")
		if err != nil {
			return err
		}
		content, err := h.take(rollback.Content, id+" content 1")
		if err != nil {
			return err
		}
		st, _, err := h.store.Resume(id, rollback.Versions{Engine: engine, Content: content})
		if err == nil {
			err = h.commit(st)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (h *History) tried(st rollback.State) error {
	h.Ledger.Tried(st)
	if h.Report != nil {
		return h.Report(st, false)
	}
	return nil
}

func (h *History) acked(st rollback.State) error {
	h.Ledger.Acked(st.Provider)
	h.states[st.Provider] = st
	if h.Report != nil {
		return h.Report(st, true)
	}
	return nil
}

// Well judges a platform that has booted: every slot's package is there as it should be, what is active can be run,
// and no problem is said but those with the codes given, and what providers did themselves.
func (h *History) Well(codes ...string) error {
	codes = append(codes, rollback.CodeRolledBack, rollback.CodeQuarantined)
	for _, id := range providers() {
		st := h.states[id]
		if st.Engine.Active.None() || st.Content.Active.None() {
			return wrong(fmt.Errorf("%s: nothing is active", id))
		}
		for _, d := range st.Digests() {
			if err := h.store.Verify(d); err != nil {
				return wrong(fmt.Errorf("%s: %w", id, err))
			}
		}
		if _, err := h.store.Path(st.Engine.Active.Digest); err != nil {
			return wrong(err)
		}
	}
	for _, p := range h.store.Problems() {
		if !slices.Contains(codes, p.Code) {
			return wrong(p)
		}
	}
	return nil
}

// Act does one thing that platforms do. The error is the disk's.
func (h *History) Act() error {
	id := providers()[h.Rand.IntN(len(providers()))]
	part := rollback.Parts()[h.Rand.IntN(2)]
	t := h.states[id].Trial
	switch h.Rand.IntN(8) {
	case 0:
		h.serial++
		v, err := h.take(part, part2label(part, h.serial))
		if err != nil {
			return err
		}
		return h.feed(id, rollback.Input{Kind: rollback.Offered, Part: part, Version: v})
	case 1, 2:
		for _, k := range []rollback.Kind{rollback.Checked, rollback.Loaded, rollback.SelfTested, rollback.Measured} {
			err := h.feed(id, rollback.Input{Kind: k, Part: t.Part, Digest: t.Digest, OK: h.Rand.IntN(9) > 0})
			if err != nil {
				return err
			}
		}
		return h.feed(id, rollback.Input{Kind: rollback.Promote, Part: t.Part})
	case 3:
		for range 3 {
			if err := h.feed(id, rollback.Input{Kind: rollback.Crashed}); err != nil {
				return err
			}
		}
		return nil
	case 4:
		return h.feed(id, rollback.Input{Kind: rollback.RollBackNow, Part: part})
	case 5:
		_, err := h.store.Collect()
		return err
	default:
		h.now = h.now.Add(time.Duration(h.Rand.IntN(120)) * time.Second)
		return h.feed(id, rollback.Input{Kind: rollback.Tick, Serving: true})
	}
}

func part2label(part rollback.Part, serial int) string {
	return string(part) + " " + strconv.Itoa(serial)
}

// feed takes a step and keeps it where the step says so.
func (h *History) feed(id string, in rollback.Input) error {
	st, out := h.states[id].Next(rollback.Defaults(), h.now, in)
	h.states[id] = st
	if !slices.ContainsFunc(out, func(e rollback.Effect) bool { return e.Act == rollback.Keep }) {
		return nil
	}
	return h.commit(st)
}

// commit keeps a state, and notes that before and after.
func (h *History) commit(st rollback.State) error {
	if err := h.tried(st); err != nil {
		return err
	}
	if err := h.store.Commit(st); err != nil {
		return err
	}
	return h.acked(st)
}

// ErrWrong marks a broken promise.
var ErrWrong = errors.New("broken promise")

func wrong(err error) error { return fmt.Errorf("%w: %w", ErrWrong, err) }
