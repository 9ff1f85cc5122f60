package store

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"time"

	"github.com/keepout-security/keepout/internal/durable"
	"github.com/keepout-security/keepout/internal/health"
	"github.com/keepout-security/keepout/internal/rollback"
)

// Config is what a store needs. Dir is required.
type Config struct {
	Dir    string           // its parent exists
	Disk   durable.Disk     // nil for the real one
	Limits Limits           // zero for DefaultLimits
	Rules  rollback.Config  // zero for rollback.Defaults
	Now    func() time.Time // nil for time.Now
}

// Store is safe for concurrent use.
type Store struct {
	c       Config
	objects string
	states  string

	importing sync.Mutex // one import at a time: each may hold the disk for long

	mu        sync.Mutex
	providers map[string]*known
	intact    map[rollback.Digest]bool // verified in this process
	imported  map[rollback.Digest]int  // how often, and in no slot yet
	pins      map[rollback.Digest]int
	unsynced  bool // a package was moved into place, and that may not be durable
	problems  []health.Problem
}

// maxProblems bounds what is remembered of what went wrong; the oldest is forgotten.
const maxProblems = 64

// providerID is what names a folder below state; internal/config has the same rule.
var providerID = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,31}$`)

// Open opens the store in a folder, and creates it the first time. It removes what a crash left unfinished and heals
// damaged copies of state. It fails only when the folder itself cannot be used; what else is wrong is in Problems.
func Open(c Config) (*Store, error) {
	if c.Disk == nil {
		c.Disk = durable.OS()
	}
	if c.Limits == (Limits{}) {
		c.Limits = DefaultLimits()
	}
	if c.Rules == (rollback.Config{}) {
		c.Rules = rollback.Defaults()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	s := &Store{
		c: c, objects: filepath.Join(c.Dir, "objects"), states: filepath.Join(c.Dir, "state"),
		providers: map[string]*known{}, intact: map[rollback.Digest]bool{},
		imported: map[rollback.Digest]int{}, pins: map[rollback.Digest]int{},
	}
	// Providers, in their cages and under their own users, may pass to what they are given, and list nothing.
	for _, dir := range []struct {
		path string
		mode fs.FileMode
	}{{c.Dir, 0o711}, {s.objects, 0o711}, {s.states, 0o700}} {
		if err := s.ensure(dir.path, dir.mode); err != nil {
			return nil, unwritable(c.Dir, err)
		}
	}
	if err := s.readStates(); err != nil {
		return nil, err
	}
	return s, nil
}

// ensure makes a folder that is there after a power cut, too, with its mode.
func (s *Store) ensure(dir string, mode fs.FileMode) error {
	info, err := s.c.Disk.Lstat(dir)
	switch {
	case err == nil && !info.IsDir():
		return fmt.Errorf("%s is no folder", dir)
	case errors.Is(err, fs.ErrNotExist):
		err = s.c.Disk.Mkdir(dir, mode)
		info = nil
	}
	if err == nil && (info == nil || info.Mode().Perm() != mode) {
		err = s.c.Disk.Chmod(dir, mode) // whatever the umask
	}
	if err != nil {
		return err
	}
	s.sync(dir)
	s.sync(filepath.Dir(dir))
	return nil
}

// sync makes durable what a process that was killed may have left in a folder: this one will build on it.
func (s *Store) sync(dir string) {
	if err := s.c.Disk.SyncDir(dir); err != nil {
		s.say(asProblem(unwritable(s.c.Dir, err)))
	}
}

// readStates cleans up and reads every provider's copies.
func (s *Store) readStates() error {
	clean := func(dir string) {
		if _, err := durable.CleanTempsOn(s.c.Disk, dir); err != nil {
			s.say(asProblem(unwritable(s.c.Dir, err)))
		}
	}
	clean(s.objects)
	clean(s.states)
	entries, err := s.c.Disk.ReadDir(s.states)
	if err != nil {
		return unwritable(s.c.Dir, err)
	}
	for _, e := range entries {
		if e.IsDir() && providerID.MatchString(e.Name()) {
			clean(filepath.Join(s.states, e.Name()))
			s.sync(filepath.Join(s.states, e.Name()))
			s.providers[e.Name()] = s.load(e.Name())
		}
	}
	return nil
}

// Resume returns the state with which a provider begins the platform's life, and what to do: Keep comes first. Call
// it once for each configured provider, after importing what came with the installation; call rollback's Next from
// then on.
//
// Every package in a slot is verified first. One that is missing or damaged is taken out of its slot, with the
// fall back that rollback decides. A provider whose copies are both gone begins with installed alone. The error is
// about the id; what is wrong with the disk is in Problems.
func (s *Store) Resume(provider string, installed rollback.Versions) (rollback.State, []rollback.Effect, error) {
	if !providerID.MatchString(provider) {
		return rollback.State{}, nil, fmt.Errorf("%q is no provider's id", provider)
	}
	s.readAhead(provider)
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.providers[provider]
	if k == nil {
		k = &known{dir: filepath.Join(s.states, provider)}
		s.providers[provider] = k
	}
	st := rollback.New(provider)
	if k.generation != 0 {
		st = k.state
	}
	if k.gone != "" {
		s.say(forgotten(provider, k.gone))
	}
	todo := []rollback.Effect{{Act: rollback.Keep}}
	next := func(in rollback.Input) {
		var out []rollback.Effect
		st, out = st.Next(s.c.Rules, s.c.Now(), in)
		for _, e := range out {
			switch e.Act {
			case rollback.Keep: // it is there once, for all
			case rollback.Notify:
				if e.Problem.Code == rollback.CodeLost {
					s.say(e.Problem)
				}
				todo = append(todo, e)
			default:
				todo = append(todo, e)
			}
		}
	}
	next(rollback.Input{Kind: rollback.Restarted})
	for _, p := range rollback.Parts() {
		for _, d := range distinct(st.Slots(p)) {
			if err := s.check(d); err != nil {
				next(rollback.Input{Kind: rollback.Lost, Part: p, Digest: d, Cause: err.Error()})
			}
		}
	}
	for i, v := range []rollback.Version{installed.Engine, installed.Content} {
		if v.None() {
			continue
		}
		if err := s.check(v.Digest); err != nil {
			s.say(asProblem(objectError(v.Digest, err.Error())))
			continue
		}
		next(rollback.Input{Kind: rollback.Installed, Part: rollback.Parts()[i], Version: v})
	}
	return st, todo, nil
}

// readAhead verifies a provider's packages while everybody else can use the store: it may take seconds.
func (s *Store) readAhead(provider string) {
	s.mu.Lock()
	var all []rollback.Digest
	if k := s.providers[provider]; k != nil {
		all = k.state.Digests()
	}
	s.mu.Unlock()
	for _, d := range all {
		s.readOnce(d)
	}
}

// readOnce verifies a package that was not verified yet. An error comes again when the package is wanted.
func (s *Store) readOnce(d rollback.Digest) {
	s.mu.Lock()
	known := s.intact[d]
	s.mu.Unlock()
	if !known {
		_ = s.Verify(d)
	}
}

// distinct lists the packages of one part, the active one last: it falls to what is known to be good by then.
func distinct(sl *rollback.Slots) []rollback.Digest {
	var all []rollback.Digest
	for _, v := range []rollback.Version{sl.Candidate, sl.Factory, sl.Former, sl.LKG, sl.Active} {
		if !v.None() && !slices.Contains(all, v.Digest) {
			all = append(all, v.Digest)
		}
	}
	return all
}

// Commit puts a provider's state on the disk, atomically: after nil it survives a power cut, after an error the old
// one or the new one does. Every package that it names must be there.
func (s *Store) Commit(st rollback.State) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.providers[st.Provider]
	if k == nil {
		return fmt.Errorf("commit slots: %q was not resumed", st.Provider)
	}
	for _, d := range st.Digests() {
		if _, err := s.c.Disk.Lstat(s.object(d)); err != nil {
			return objectError(d, "is missing")
		}
	}
	if err := st.Check(); err != nil {
		return fmt.Errorf("commit slots: %w", err)
	}
	if err := s.save(k, st); err != nil {
		return err
	}
	k.gone, k.unsure = "", false
	for _, d := range st.Digests() {
		delete(s.imported, d)
	}
	return nil
}

// State returns what was last committed for a provider.
func (s *Store) State(provider string) (rollback.State, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.providers[provider]
	if k == nil || k.generation == 0 {
		return rollback.State{}, false
	}
	return k.state, true
}

// Providers lists all that have slots, sorted, also those that are no longer configured.
func (s *Store) Providers() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.providers))
}

// Forget removes a provider's slots and history. Its packages go with the next Collect.
func (s *Store) Forget(provider string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.providers[provider]
	if k == nil {
		return nil
	}
	if k.generation != 0 || k.gone != "" {
		if err := durable.DiscardOn(s.c.Disk, k.dir); err != nil {
			return unwritable(s.c.Dir, err)
		}
	}
	delete(s.providers, provider)
	return nil
}

// Trouble returns what went wrong with the disk since Open.
func (s *Store) Trouble() []health.Problem {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.problems)
}

// Problems returns Trouble, and what each provider's committed state says.
func (s *Store) Problems() []health.Problem {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := slices.Clone(s.problems)
	for _, id := range slices.Sorted(maps.Keys(s.providers)) {
		out = append(out, s.providers[id].state.Problems()...)
	}
	health.Sort(out)
	return out
}

// say remembers a problem. Preconditions: mu is held, or nobody else has the store yet.
func (s *Store) say(p health.Problem) {
	if slices.Contains(s.problems, p) {
		return
	}
	if s.problems = append(s.problems, p); len(s.problems) > maxProblems {
		s.problems = s.problems[1:]
	}
}

func asProblem(err error) (p health.Problem) {
	errors.As(err, &p)
	return p
}

func torn(provider string, why error) health.Problem {
	return health.Problem{
		Code: CodeTorn, Severity: health.Info, Provider: provider,
		Title: fmt.Sprintf("one copy of the slots of %s was damaged, the other is used: %v", provider, why),
		Fix:   "check the disk (smartctl, the kernel's log)",
	}
}

func forgotten(provider, why string) health.Problem {
	return health.Problem{
		Code: CodeForgotten, Severity: health.Warning, Provider: provider,
		Title: fmt.Sprintf("both copies of the slots of %s are damaged, it begins with what was installed: %s",
			provider, why),
		Fix: "check the disk, then install the version that you want",
	}
}
