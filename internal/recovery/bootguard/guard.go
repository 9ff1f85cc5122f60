//go:build linux

package bootguard

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/keepout-security/keepout/internal/boot"
	"github.com/keepout-security/keepout/internal/durable"
	"github.com/keepout-security/keepout/internal/health"
	"github.com/keepout-security/keepout/internal/recovery/copies"
	"github.com/keepout-security/keepout/internal/recovery/esp"
	"github.com/keepout-security/keepout/internal/recovery/loader"
	"github.com/keepout-security/keepout/internal/recovery/rehearsal"
)

// InstructionFile is the name of the instruction in the run folder, and Reached that of the mark that the system came
// up.
const (
	InstructionFile = "boot.json"
	Reached         = "boot.reached"
)

// fallback is where the state lies on a machine where recovery was never armed: only what fails after this folder is
// there can be counted.
const fallback = "var/lib/keepout/boot"

// Verifier opens a remediation that the recovery environment left, which anybody may have changed since, and says what
// it wants. trust is the folder of the keys. An error means that it is not to be applied now, nor ever, unless the
// remedy says Later.
type Verifier func(envelope []byte, trust string) (boot.Remedy, error)

// Revoker remembers for good what a staged list of signed revocations takes back. trust is the folder of the keys,
// machineID this machine's. The error is about what was refused; what was not refused holds.
type Revoker func(staged []byte, trust, machineID string, now time.Time) error

// Guard is one run of bootguard.
type Guard struct {
	Root   string   // "/", or another root in a test
	RunDir string   // of the core, not below Root
	Dir    string   // Keepout's folder; "" looks for it
	Verify Verifier // nil: intents are left where they are, and that is said
	Learn  Revoker  // nil: what the control plane took back is not looked for
	Now    func() time.Time
	Bin    string // the folder of Keepout's programs, below Root
	// Restart restarts the machine in order. It may return before that is done.
	Restart func() error

	dir       *esp.Dir
	loader    loader.Loader
	boot      string
	uncounted bool // of boot.Instruction
	trouble   []string
	notes     []string // what is said, and is no trouble: what the fetcher staged must not change how a boot is judged
}

func (g *Guard) say(err error) {
	if err != nil && !slices.Contains(g.trouble, err.Error()) {
		g.trouble = append(g.trouble, err.Error())
	}
}

// open finds the state and the loader.
func (g *Guard) open() error {
	id, err := os.ReadFile(filepath.Join(g.Root, "proc", "sys", "kernel", "random", "boot_id"))
	if err != nil {
		return fmt.Errorf("this boot has no id: %w", err)
	}
	g.boot = strings.TrimSpace(string(id))
	path := g.Dir
	if path == "" {
		if path, err = esp.Find(g.Root); errors.Is(err, fs.ErrNotExist) {
			path = filepath.Join(g.Root, filepath.FromSlash(fallback))
			g.say(os.MkdirAll(path, 0o700))
		}
	}
	g.dir = esp.Open(path)
	g.loader = loader.Detect(g.Root, g.dir)
	return nil
}

// Begin counts this boot and writes the instruction for the core. The error is what kept it from telling the core
// anything: without an instruction, the core runs as configured.
func (g *Guard) Begin() error {
	if err := g.open(); err != nil {
		return err
	}
	s := g.read()
	g.rehearsed()
	if err := g.learn(); err != nil { // before a fix is believed: the power may have gone since the news came
		g.notes = append(g.notes, err.Error())
	}
	s = g.applyIntents(s)
	in := boot.Input{
		Kind: boot.Started, Boot: g.boot, Left: g.loader.Left(), CanRecover: g.loader.CanRecover(), Crumb: g.dir.Crumb(),
	}
	next, todo := s.Step(g.Now(), in)
	if err := g.enact(&next, todo); err != nil {
		// The count is not on the disk, or the loader does not take the request: no restart, or it would never end.
		g.say(err)
		in.CanRecover = false
		next, todo = s.Step(g.Now(), in)
		err := g.enact(&next, todo)
		g.say(err)
		g.uncounted = g.uncounted || err != nil
	}
	if restarting(todo) {
		return g.Restart()
	}
	return g.instruct(&next, todo)
}

// rehearsed takes back the mark of a rehearsal that did not come, so that the next real visit is none. One that was
// asked for in this very boot, in which this program runs once more, stays.
func (g *Guard) rehearsed() {
	if in, err := g.instruction(); err == nil && in.Boot == g.boot {
		return
	}
	missed, err := rehearsal.Missed(g.dir, g.Now())
	g.say(err)
	if missed && err == nil {
		g.notes = append(g.notes, "the rehearsal that was asked for did not come, and is taken back")
	}
}

// read takes the state, or a new one where it is lost.
func (g *Guard) read() boot.State {
	p := g.dir.State()
	s := p.State
	for i, err := range p.Errs {
		if err != nil && !errors.Is(err, boot.ErrEmpty) {
			g.say(fmt.Errorf("copy %c of the boot state: %w", 'a'+rune(i), err))
		}
	}
	if p.Lost {
		g.uncounted = true // a disk that forgets may do so at each boot
		s, _ = s.Step(g.Now(), boot.Input{Kind: boot.Unreadable, Why: "both copies of the state were unusable"})
	}
	return s
}

// enact does what Step wants, but for what the instruction says.
func (g *Guard) enact(s *boot.State, todo []boot.Effect) error {
	for _, e := range todo {
		var err error
		switch e.Act {
		case boot.Keep:
			err = g.dir.Keep(s)
		case boot.Arm:
			err = g.loader.Arm(e.Tries, e.Visits)
		case boot.EnterRecovery:
			err = g.loader.ToRecovery()
		case boot.ShowMenu:
			g.stay()
		case boot.Run, boot.Repair:
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// stay ends restarts by themselves: a panic stays on the screen, and the loader waits for a person.
func (g *Guard) stay() {
	g.say(os.WriteFile(filepath.Join(g.Root, "proc", "sys", "kernel", "panic"), []byte("0\n"), 0o644))
	if g.loader.Kind() != loader.Unknown {
		g.say(g.loader.ToMenu())
	}
}

func restarting(todo []boot.Effect) bool {
	for _, e := range todo {
		if e.Act == boot.EnterRecovery {
			return true
		}
	}
	return false
}

// applyIntents turns what the recovery environment left into orders. Each is verified again, and removed once its
// orders are kept or it is refused. Where orders cannot be kept, the fix and all after it wait for the next start.
func (g *Guard) applyIntents(s boot.State) boot.State {
	intents, err := g.dir.Intents()
	g.say(err)
	if len(intents) > 0 && g.Verify == nil {
		g.say(errors.New("there are intents, and this program cannot verify them: they are left as they are"))
		return s
	}
	for _, in := range intents {
		remedy, err := g.Verify(in.Data, g.dir.Join(esp.Trust))
		if err != nil {
			s = g.notApplied(s, in.Name, remedy.Later, err)
			continue
		}
		if remedy.Lost != "" {
			g.say(errors.New(remedy.Lost))
		}
		g.restore(remedy.Restore)
		next, todo := s.Step(g.Now(), boot.Input{
			Kind: boot.Remedied, Orders: remedy.Orders, Unset: remedy.Unset, Why: in.Name,
		})
		if err := g.enact(&next, todo); err != nil {
			// It was taken, and only the last one that was taken may be taken again: no other may take its place.
			return g.notApplied(s, in.Name, true, fmt.Errorf("its orders cannot be kept: %w", err))
		}
		s = next
		g.say(g.dir.RemoveIntent(in.Name))
	}
	return s
}

// notApplied says why a fix is not applied, also in the history: that is on the screen and in the bundle of the next
// visit to the recovery environment. What is refused is removed; what waits is still there at the next start.
func (g *Guard) notApplied(s boot.State, name string, waits bool, why error) boot.State {
	if waits {
		g.say(fmt.Errorf("intent %s waits for the next start: %w", name, why))
	} else {
		g.say(fmt.Errorf("intent %s is refused: %w", name, why))
		g.say(g.dir.RemoveIntent(name))
	}
	next, todo := s.Step(g.Now(), boot.Input{Kind: boot.NotRemedied, Why: health.Unadvised(why)})
	if err := g.enact(&next, todo); err != nil {
		g.say(err)
		return s
	}
	return next
}

// instruct writes the instruction.
func (g *Guard) instruct(s *boot.State, todo []boot.Effect) error {
	in := boot.Instruction{
		Boot: g.boot, Mode: s.Mode, Attempt: s.Attempt(), Dir: g.dir.Path(), Orders: s.Orders,
		Trouble: strings.Join(g.trouble, "; "), Uncounted: g.uncounted, Good: s.Boot == "", Told: g.told(),
		Suspect: s.Suspect, Recoveries: s.Recoveries,
	}
	for _, e := range todo {
		switch e.Act {
		case boot.Run:
			in.Reason = e.Why
		case boot.ShowMenu:
			in.Menu = true
		case boot.Keep, boot.Arm, boot.EnterRecovery, boot.Repair:
		}
	}
	return g.write(in)
}

func (g *Guard) write(in boot.Instruction) error {
	data, err := in.Encode()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(g.RunDir, 0o755); err != nil {
		return fmt.Errorf("run folder: %w", err)
	}
	return durable.WriteFile(filepath.Join(g.RunDir, InstructionFile), data, 0o644)
}

// instruction reads what Begin wrote in this boot.
func (g *Guard) instruction() (boot.Instruction, error) {
	data, err := os.ReadFile(filepath.Join(g.RunDir, InstructionFile))
	if err != nil {
		return boot.Instruction{}, fmt.Errorf("instruction: %w", err)
	}
	return boot.ParseInstruction(data)
}

// Good marks this boot as good and arms the loader again. What answers a failure and still waits goes: that is over.
func (g *Guard) Good() error {
	if err := g.settle(boot.Good); err != nil {
		return err
	}
	in, err := g.instruction()
	if err != nil {
		return err
	}
	in.Good = true
	g.goodStory(&in)
	if err := copies.Keep(g.copies(), g.trees()); err != nil {
		g.say(fmt.Errorf("not every file could be copied: %w", err)) // it only cannot be restored then
	}
	return g.write(in)
}

// ShutDown says that this boot ends in order. After Good it changes nothing.
func (g *Guard) ShutDown() error { return g.settle(boot.ShutDown) }

// Release takes orders and caution back, those that wait to be applied as well.
func (g *Guard) Release(why string) error { return g.take(boot.Input{Kind: boot.Release, Why: why}) }

func (g *Guard) settle(kind boot.Kind) error { return g.take(boot.Input{Kind: kind}) }

func (g *Guard) take(in boot.Input) error {
	if err := g.open(); err != nil {
		return err
	}
	in.Boot = g.boot
	if in.Kind == boot.Good || in.Kind == boot.Release {
		in.Why = g.forgetIntents(in.Why)
	}
	s, todo := g.read().Step(g.Now(), in)
	return g.enact(&s, todo)
}

// forgetIntents removes what still waits, before it is written down that the failure is over: a fix for it must not be
// applied by a later start. It returns why, and what went.
func (g *Guard) forgetIntents(why string) string {
	gone, err := g.dir.ForgetIntents()
	g.say(err)
	if len(gone) == 0 {
		return why
	}
	if why != "" {
		why += "; "
	}
	return why + "no longer waits: " + strings.Join(gone, " ")
}

// Status is what is known of this machine's boots.
type Status struct {
	Dir    string
	Loader string
	Left   int
	State  boot.State
	Wrong  []string
}

// Status reads the state and changes nothing.
func (g *Guard) Status() (Status, error) {
	if err := g.open(); err != nil {
		return Status{}, err
	}
	s := g.read()
	return Status{
		Dir: g.dir.Path(), Loader: g.loader.Kind(), Left: g.loader.Left(), State: s, Wrong: g.trouble,
	}, nil
}
