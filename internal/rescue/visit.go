package rescue

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/keepout-security/keepout/internal/boot"
	"github.com/keepout-security/keepout/internal/crash"
	"github.com/keepout-security/keepout/internal/health"
	"github.com/keepout-security/keepout/internal/recovery/esp"
	"github.com/keepout-security/keepout/internal/recovery/intent"
	"github.com/keepout-security/keepout/internal/recovery/protocol"
	"github.com/keepout-security/keepout/internal/recovery/remediation"
	"github.com/keepout-security/keepout/internal/recovery/settings"
	"github.com/keepout-security/keepout/internal/rescue/plan"
)

// Machine is what a visit needs of the machine it runs on.
type Machine struct {
	Config  settings.Config
	Dir     *esp.Dir // on a file system that is mounted for writing; nil when there is none
	Absent  string   // why Dir is nil; empty: it was not found
	BootID  string   // the kernel's, of this boot
	Panics  fs.FS    // a mounted pstore, or nil
	Forget  func(record string) error
	Server  *Server // nil: nobody is asked
	Trust   remediation.Trust
	Bundle  func(Evidence) (Bundle, error)
	Connect func(ctx context.Context) (address string, err error)
	Screen  func(record *crash.Record, details bool)
	Leave   func(plan.Act)
	Arm     func(tries, visits int) error // sets the boot loader's counters
	Left    int                           // what its counter of boots stood at, -1: not known
	Uptime  func() float64                // seconds since the kernel's start; nil: not known
	Drawn   float64                       // what Uptime said when the screen showed the first picture
	Now     func() time.Time
	Log     func(format string, args ...any)
}

// Evidence is what a diagnostics bundle is made of.
type Evidence struct {
	State  boot.State
	Crumb  boot.Crumb
	Panics PanicLog
	Test   bool
	Now    time.Time
}

// Bundle is one diagnostics bundle as it is kept and sent.
type Bundle struct {
	Off       bool   // diagnostics are switched off: there is nothing else in it
	Kept      []byte // what stays on the boot file system
	Sent      []byte // what travels, sealed for the organisation; nil where it has no key
	Digest    string // of its content; without a bundle a random one, that names this visit
	Signature string // of the failure
}

// Visit does what plan decides on one machine. Open makes it.
type Visit struct {
	m        Machine
	facts    plan.Facts    // of the beginning
	disk     chan struct{} // full while an effect uses the boot file system: see hold
	patience time.Duration // for the disk, at the end
	recorded plan.Phase    // for which the story was kept
	kept     chan struct{} // closed when that is on the disk; nil: there is none yet

	mu sync.Mutex // guards what follows: effects run beside the screen. Nobody waits for a disk with it
	known
	uploaded bool
	bundle   Bundle
	envelope []byte // verified, and not yet written
	failure  intent.Failure
}

// Open counts this visit and returns what is to be decided on. It always returns a visit: where the state cannot be
// kept, the facts say so and the visit ends at the menu.
func Open(m Machine) (*Visit, plan.Facts) {
	v := &Visit{m: m, disk: make(chan struct{}, 1), patience: lastWait}
	v.config, v.begun = m.Config, m.Now()
	if m.Server != nil {
		v.server = m.Server.Host()
	}
	v.facts.Alone = m.Server == nil
	if m.Dir == nil {
		v.facts.Unusable = cmp.Or(m.Absent, "it was not found")
		v.state = boot.New()
		return v, v.facts
	}
	picked := m.Dir.State()
	v.state, v.crumb = picked.State, m.Dir.Crumb()
	if picked.Lost {
		v.note("the boot state could not be read (%v; %v) and was begun anew", picked.Errs[0], picked.Errs[1])
	}
	v.facts.Test = v.takeRehearsal()
	if v.facts.Test {
		v.facts.Orders = v.state.Orders
		return v, v.facts
	}
	v.enter()
	v.facts.Orders, v.facts.Visits = v.state.Orders, v.state.Recoveries
	v.facts.Suspect = v.state.Suspect
	if picked.Lost { // then nobody knows of which boot it is
		v.facts.Suspect = v.crumb
	}
	v.crumb = v.facts.Suspect
	return v, v.facts
}

// enter counts the visit before anything else is done, so that one that dies counts too.
func (v *Visit) enter() {
	next, effects := v.state.Step(v.m.Now(), boot.Input{
		Kind: boot.RecoveryEntered, Boot: v.m.BootID, Left: v.m.Left, CanRecover: true, Crumb: v.crumb,
	})
	v.state = next
	if err := v.carryOut(&next, effects); err != nil {
		v.facts.Unusable = err.Error()
	}
	v.facts.Menu = slices.ContainsFunc(effects, func(e boot.Effect) bool { return e.Act == boot.ShowMenu })
}

// carryOut keeps the state and arms the loader, as far as the step asks for it.
func (v *Visit) carryOut(s *boot.State, effects []boot.Effect) error {
	for _, e := range effects {
		switch e.Act {
		case boot.Keep:
			if err := v.m.Dir.Keep(s); err != nil {
				return err
			}
		case boot.Arm:
			if err := v.m.Arm(e.Tries, e.Visits); err != nil {
				v.note("the boot loader's counter: %v", err)
			}
		case boot.Run, boot.EnterRecovery, boot.Repair, boot.ShowMenu:
		}
	}
	return nil
}

// takeRehearsal reports whether a person asked for a rehearsal, and forgets it: the next visit is a real one.
func (v *Visit) takeRehearsal() bool {
	file := v.m.Dir.Join(esp.Rehearsal)
	if _, err := os.Lstat(file); err != nil {
		return false
	}
	err := os.Remove(file)
	if err != nil {
		v.note("the rehearsal's mark stays, so this counts as a real visit: %v", err)
	}
	return err == nil
}

func (v *Visit) note(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	v.mu.Lock()
	if !slices.Contains(v.notes, text) { // what a server sends again at each question is one trouble
		v.notes = append(v.notes, text)
	}
	v.mu.Unlock()
	v.m.Log("%s", text)
}

// Save keeps the kernel's last words and makes the bundle. What was kept is removed from the firmware's store, which is
// small and is needed for the next panic.
func (v *Visit) Save(ctx context.Context) plan.Saved {
	if err := v.save(ctx); err != nil {
		return plan.Saved{Trouble: err.Error()}
	}
	return plan.Saved{}
}

func (v *Visit) save(ctx context.Context) error {
	var panics PanicLog
	if v.m.Panics != nil {
		panics = ReadPanicLog(v.m.Panics)
	}
	v.mu.Lock()
	v.panics = panics
	evidence := Evidence{State: v.state, Crumb: v.crumb, Panics: panics, Test: v.facts.Test, Now: v.m.Now()}
	v.mu.Unlock()
	bundle, err := v.m.Bundle(evidence)
	if err != nil {
		return err
	}
	failure := intent.Failure{
		Machine: v.config.Machine, Bundle: bundle.Digest, Signature: bundle.Signature, Floor: v.config.Built,
		At: evidence.Now,
	}
	if c := evidence.Crumb; c.Provider != "" {
		failure.Providers = []remediation.Provider{{ID: c.Provider, Engine: c.Engine, Content: c.Content}}
	}
	v.mu.Lock()
	v.bundle, v.digest, v.bytes, v.failure = bundle, bundle.Digest, len(bundle.Kept), failure
	v.mu.Unlock()
	if v.m.Dir == nil {
		return errors.New("there is no place to keep them")
	}
	if err := v.keepEvidence(ctx, &failure, &bundle); err != nil || bundle.Off {
		return err
	}
	for _, name := range panics.Files {
		if err := v.m.Forget(name); err != nil {
			v.note("a panic record stays: %v", err)
		}
	}
	return nil
}

// Connect waits for a network.
func (v *Visit) Connect(ctx context.Context) (plan.Linked, error) {
	address, err := v.m.Connect(ctx)
	return plan.Linked{Address: address}, err
}

// Ask uploads the bundle if that is still to be done, asks for a fix, and verifies what comes.
func (v *Visit) Ask(ctx context.Context, s plan.State) plan.Answered {
	v.mu.Lock()
	bundle, uploaded := v.bundle, v.uploaded
	v.mu.Unlock()
	if !uploaded && len(bundle.Sent) > 0 {
		if err := v.m.Server.Upload(ctx, v.config.Machine, bundle.Digest, s.Test, bundle.Sent); err != nil {
			return v.failed(err)
		}
		v.mu.Lock()
		v.uploaded = true
		v.mu.Unlock()
	}
	answer, err := v.m.Server.Ask(ctx, protocol.FixRequest{
		Version: 1, Machine: v.config.Machine, Digest: bundle.Digest, Test: s.Test, Attempt: s.Attempts,
		Visits: s.Facts.Visits, Suspect: s.Facts.Suspect.Provider, Time: v.m.Now(),
	})
	if err != nil {
		return v.failed(err)
	}
	retry := time.Duration(min(max(answer.Retry, 0), int(plan.MaxInterval/time.Second))) * time.Second
	release, err := v.hold(ctx)
	if err != nil {
		return v.failed(err)
	}
	defer release()
	v.mu.Lock()
	failure := v.failure
	v.mu.Unlock()
	v.revoke(&failure, answer.Revocations)
	if answer.Status == protocol.NoFix {
		return plan.Answered{Kind: plan.None, Retry: retry}
	}
	return v.judge(&failure, answer.Envelope, s.Test, retry)
}

// revoke takes fixes back that were taken back by who may, before any fix is judged. What is refused is only logged,
// as what is for other machines is; what there is no room for is shown, and what is forgotten by it.
func (v *Visit) revoke(failure *intent.Failure, revocations [][]byte) {
	if v.m.Dir == nil || v.facts.Test {
		return
	}
	for _, sealed := range revocations[:min(len(revocations), protocol.MaxRevocations)] {
		err := intent.Revoke(v.m.Dir, v.m.Trust, failure, v.m.Now(), sealed)
		if p := (health.Problem{}); errors.As(err, &p) && p.Code == remediation.CodeFull {
			v.note("a revocation was refused: %s", health.Unadvised(err)) // it counts, and does not hold
		} else if errors.Is(err, intent.ErrLost) {
			v.note("%v", err)
		} else if err != nil {
			v.m.Log("a revocation was refused: %v", err)
		}
	}
}

// judge verifies a fix before it looks at it.
func (v *Visit) judge(failure *intent.Failure, envelope []byte, test bool, retry time.Duration) plan.Answered {
	fix, err := intent.Judge(v.m.Dir, v.m.Trust, failure, test, v.m.Now(), envelope)
	if err == nil && !test {
		_, err = intent.Remedy(&fix)
	}
	if err != nil {
		v.m.Log("a fix was refused: %v", err)
		return plan.Answered{Kind: plan.Refused, Why: "a fix was refused: " + health.Unadvised(err), Retry: retry}
	}
	hold := func(a remediation.Action) bool { return a.Verb == remediation.Hold }
	if !test && slices.ContainsFunc(fix.Effects, hold) {
		return plan.Answered{Kind: plan.None, Why: fix.Fix.Reason, Retry: retry}
	}
	v.mu.Lock()
	v.envelope = envelope
	v.mu.Unlock()
	return plan.Answered{Kind: plan.Fix, ID: fix.Fix.ID, Why: fix.Fix.Reason}
}

func (v *Visit) failed(err error) plan.Answered {
	v.m.Log("server: %v", err)
	return plan.Answered{Kind: plan.Failed, Why: err.Error()}
}

var errNoPlace = errors.New("there is no place to write it down")

// Apply writes down what the next boot does.
func (v *Visit) Apply(ctx context.Context, r plan.Remedy) plan.Applied {
	if err := v.apply(ctx, r); err != nil {
		return plan.Applied{Trouble: err.Error()}
	}
	return plan.Applied{}
}

func (v *Visit) apply(ctx context.Context, r plan.Remedy) error {
	if v.m.Dir == nil {
		return errNoPlace
	}
	release, err := v.hold(ctx)
	if err != nil {
		return err
	}
	defer release()
	v.mu.Lock()
	state, envelope := v.state, v.envelope
	v.mu.Unlock()
	in := boot.Input{Boot: v.m.BootID, Left: -1, CanRecover: true, Why: r.String() + ": " + r.Why}
	switch r.Source {
	case plan.Server:
		fix := esp.Intent{Name: intentName(r.ID), Data: envelope}
		if err := v.m.Dir.WithRoom(0, func() error { return v.m.Dir.LeaveIntent(fix) }); err != nil {
			return fmt.Errorf("leave the fix to the next start: %w", err)
		}
		in.Kind, in.Mode = boot.Remedied, boot.Normal
	case plan.Local:
		in.Kind, in.Mode, in.Orders = boot.Remedied, r.Mode, r.Orders
	case plan.Person:
		in.Kind, in.Mode = boot.Choose, r.Mode
	default:
		return fmt.Errorf("a remedy from %q is not known", r.Source)
	}
	if err := ctx.Err(); err != nil {
		return err // while the disk did not answer, another remedy took the place of this one
	}
	next, effects := state.Step(v.m.Now(), in)
	if err := v.carryOut(&next, effects); err != nil {
		return err
	}
	v.mu.Lock()
	v.state = next
	v.mu.Unlock()
	return nil
}

// intentName is the file of a fix: nothing of the id that could be a path stays.
func intentName(id string) string {
	clean := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '_':
			return r
		}
		return '-'
	}, id)
	return "fix-" + clean[:min(len(clean), 80)] + ".json"
}

// Report tells the server, once; the machine restarts whatever comes of it.
func (v *Visit) Report(ctx context.Context, s plan.State) {
	v.mu.Lock()
	digest := v.bundle.Digest
	v.mu.Unlock()
	err := v.m.Server.Report(ctx, protocol.Report{
		Version: 1, Machine: v.config.Machine, Digest: digest, Test: s.Test,
		Source: string(s.Remedy.Source), Fix: s.Remedy.ID, Remedy: s.Remedy.String(), Trouble: s.Trouble,
	})
	if err != nil {
		v.m.Log("report: %v", err)
	}
}

// Show draws the visit. The story of its end is written beside it: Show waits for no disk.
func (v *Visit) Show(s plan.State) {
	v.mu.Lock()
	record := account(&v.known, &s, v.m.Now())
	v.mu.Unlock()
	v.m.Screen(record, s.Details)
	v.keepStory(record, &s)
}

// Leave ends the visit: the record of it stays, if the disk takes it in time, and the machine restarts or switches
// itself off.
func (v *Visit) Leave(a plan.Act) {
	if v.kept != nil && !within(v.patience, func() { <-v.kept }) {
		v.m.Log("the story of this visit is not kept: %v", errSilent)
	}
	v.m.Leave(a)
}
