package roster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/config"
	"github.com/keepout-security/keepout/internal/content"
	"github.com/keepout-security/keepout/internal/rollback"
	"github.com/keepout-security/keepout/internal/session"
	pb "github.com/keepout-security/keepout/wire/keepoutpb"
)

// trial is one look at a candidate before it sees anything of this host: first by the platform alone, then by its
// engine, in a cage that is thrown away.
type trial struct {
	cancel context.CancelFunc
	over   chan struct{} // closed when nothing of it runs any more
}

// check looks at a candidate on a goroutine of its own and reports what it finds.
func (l *lineage) check(p rollback.Part, v rollback.Version) {
	engine, data := l.onTrial(p)
	ctx, cancel := context.WithCancel(context.Background())
	t := &trial{cancel: cancel, over: make(chan struct{})}
	l.mu.Lock()
	before := l.trial
	l.trial = t
	l.mu.Unlock()
	if before != nil {
		before.cancel()
	}
	in, err := l.compose(engine, data)
	u := l.r.updates()
	l.r.trials.Go(func() {
		defer close(t.over)
		defer cancel()
		if before != nil {
			<-before.over // it has the same user and folder
		}
		if err == nil && u.Schema {
			err = in.CheckContent(ctx)
		}
		if err == nil && u.Load {
			err = l.r.tryUntil(ctx, l, in, time.Duration(u.LoadTime))
		}
		if ctx.Err() != nil {
			return // nobody wants to know any more
		}
		found := rollback.Input{Kind: rollback.Checked, Part: p, Digest: v.Digest, OK: err == nil}
		if err != nil {
			// Where the copy lies says nothing to who wrote it.
			found.Cause = strings.ReplaceAll(oneLine(err), filepath.Clean(in.Content)+string(filepath.Separator), "")
		}
		l.mail.put(func() { l.step(found) })
	})
}

// oneLine is the first thing that is wrong, for a line of a report.
func oneLine(err error) string {
	var r *content.Refused
	if errors.As(err, &r) {
		if n := len(r.Mistakes) - 1; n > 0 {
			return fmt.Sprintf("%s (and %d more)", r.Mistakes[0].Error(), n)
		}
		return r.Mistakes[0].Error()
	}
	return err.Error()
}

// verdicts of a trial arrive here.
type examiner struct {
	subscribed chan struct{}
	votes      chan ballot
	ended      chan error
}

type ballot struct {
	id     uint64
	vote   event.Vote
	reason event.Reason
}

func (*examiner) Hello(*session.Session, string) {}

func (x *examiner) Subscribed(*session.Session) {
	select {
	case x.subscribed <- struct{}{}:
	default: // a second subscription is no news
	}
}

func (x *examiner) Voted(_ *session.Session, id uint64, vote event.Vote, reason event.Reason) {
	x.votes <- ballot{id, vote, reason} // there is room for every sample
}

func (*examiner) Beat(*session.Session, session.Beat) {}

func (x *examiner) Ended(_ *session.Session, err error) { x.ended <- err }

// tryAgain is when a trial is begun again that the host had no room for.
const tryAgain = 2 * time.Second

// tryUntil is try, as often as the host has no room for it: a candidate that is refused is so for good, so it must be
// its own fault. One that still could not be tried when its time is over is refused by rollback.
func (r *Roster) tryUntil(ctx context.Context, l *lineage, in config.Installed, patience time.Duration) error {
	for {
		err := r.try(ctx, l, in, patience)
		var host hostError
		if !errors.As(err, &host) {
			return err
		}
		r.c.Log.Warn("a candidate could not be tried", slog.String("provider", l.id), slog.Any("error", err))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(tryAgain):
		}
	}
}

// try lets an engine load its content and judge a few samples. The error says what it did instead.
func (r *Roster) try(ctx context.Context, l *lineage, in config.Installed, patience time.Duration) error {
	dir := r.stateDir(laneKey(l.id, laneTrial))
	defer func() { _ = os.RemoveAll(dir) }() // what is left is removed before the next trial
	if err := os.RemoveAll(dir); err != nil {
		return hostError{fmt.Errorf("clear the trial's folder: %w", err)}
	}
	l.startingTrial()
	proc, err := r.spawn(in, laneKey(l.id, laneTrial), l.slots[laneTrial])
	if err != nil {
		return err
	}
	x := &examiner{
		subscribed: make(chan struct{}, 1), ended: make(chan error, 1), votes: make(chan ballot, maxSamples),
	}
	s := session.Start(session.Config{
		Provider: l.id, Auth: proc.Auth, Control: proc.Control, Allowed: grantOf(in.Manifest), Sink: x,
		Welcome: welcome(in, dir),
	})
	err = x.examine(ctx, s, in, patience, r.budget())
	if errors.Is(err, errEnded) {
		select {
		case <-proc.Done():
			err = fmt.Errorf("%w: %s", err, proc.Cause())
		case <-time.After(exitTime):
		}
	}
	proc.Kill()
	<-proc.Done()
	s.End(nil)
	s.Wait()
	return errors.Join(err, proc.Close())
}

func welcome(in config.Installed, stateDir string) *pb.Welcome {
	return &pb.Welcome{
		Provider: in.ID, Content: in.Content, StateDir: stateDir, Settings: in.Values, Credit: Credit,
		HeartbeatMs: uint32(time.Duration(in.Manifest.Health.Heartbeat).Milliseconds()),
	}
}

var (
	errEnded = errors.New("it ended in its throw-away cage")
	errSlow  = errors.New("it took too long")
)

// examine waits until the engine is ready and asks it about the samples.
func (x *examiner) examine(
	ctx context.Context, s *session.Session, in config.Installed, patience, budget time.Duration,
) error {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case err := <-x.ended:
		return ending("while it loaded", err)
	case <-timer.C:
		return fmt.Errorf("loading: %w: more than %v", errSlow, patience)
	case <-x.subscribed:
	}
	all, err := samples(in)
	if err != nil {
		return err
	}
	defer func() {
		for _, f := range all {
			_ = f.file.Close()
		}
	}()
	for i, f := range all {
		if err := x.ask(ctx, s, uint64(i+1), f, budget); err != nil {
			return err
		}
	}
	return nil
}

// ask delivers one sample and waits for the vote.
func (x *examiner) ask(ctx context.Context, s *session.Session, id uint64, f sample, budget time.Duration) error {
	ev, err := f.event(id)
	if err != nil {
		return err
	}
	filter := s.Filter()
	typ, asked := event.Open, false
	for _, typ = range []event.Type{event.Open, event.Exec} {
		if asked = filter.Matches(typ, &ev, f.head); asked {
			break
		}
	}
	if !asked {
		return nil // it does not want to see such files
	}
	ev.Type = typ
	file := -1
	if filter.Descriptor {
		file = int(f.file.Fd())
	}
	if err := s.Deliver(typ, &ev, budget, file); err != nil {
		return ending("before it was asked about "+f.name, nil)
	}
	timer := time.NewTimer(trialPatience * budget)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-x.ended:
			return ending("when it was asked about "+f.name, err)
		case <-timer.C:
			return fmt.Errorf("%s: %w to vote: more than %v", f.name, errSlow, trialPatience*budget)
		case b := <-x.votes:
			if b.id != id {
				continue
			}
			// Content that cannot know the object says so, by an abstention with the self-test's rule.
			if f.denied && b.vote.Action != event.Deny && b.vote.Rule != event.SelftestRule {
				return fmt.Errorf("self-test: it voted %s on what it must deny", b.vote.Action)
			}
			return nil
		}
	}
}

// trialPatience is how many budgets a first vote may take: caches are cold, and the host may be busy.
const trialPatience = 5

func ending(when string, err error) error {
	if err != nil {
		return fmt.Errorf("%w %s: %w", errEnded, when, err)
	}
	return fmt.Errorf("%w %s", errEnded, when)
}

// maxSamples bounds what an engine is asked about.
const maxSamples = 8

// sample is a file that a new version must be able to judge.
type sample struct {
	name   string
	file   *os.File
	head   []byte
	denied bool // the engine must deny it
}

// samples are files of the kinds at which engines have stumbled, and the provider's self-test file.
func samples(in config.Installed) ([]sample, error) {
	noise := make([]byte, 64<<10)
	for i, state := 0, uint32(1); i < len(noise); i++ { // xorshift: the same bytes every time
		state ^= state << 13
		state ^= state >> 17
		state ^= state << 5
		noise[i] = byte(state)
	}
	elf := append([]byte("\x7fELF\x02\x01\x01"), make([]byte, 57)...)
	out := make([]sample, 0, maxSamples)
	var errs []error
	add := func(name string, text []byte, denied bool) {
		f, err := inMemory(name, text)
		if err != nil {
			errs = append(errs, err)
			return
		}
		out = append(out, sample{name: name, file: f, head: text[:min(len(text), session.MagicLen)], denied: denied})
	}
	add("an-empty-file", nil, false)
	add("a-text", []byte("hello\n"), false)
	add("a-broken-program", elf, false)
	add("a-script", []byte("#!/bin/sh\nexit 0\n"), false)
	add("noise", noise, false)
	switch text, err := in.Manifest.Selftest(); {
	case err == nil:
		add(event.SelftestName+"trial", text, true)
	case !errors.Is(err, config.ErrNoSelftest):
		errs = append(errs, err)
	}
	return out, errors.Join(errs...)
}

// inMemory makes a file that nobody can write any more.
func inMemory(name string, text []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_NOEXEC_SEAL)
	if errors.Is(err, unix.EINVAL) { // a kernel before 6.3
		fd, err = unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return nil, fmt.Errorf("sample %s: %w", name, err)
	}
	f := os.NewFile(uintptr(fd), name)
	_, err = f.Write(text)
	if err == nil {
		_, err = unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_WRITE|unix.F_SEAL_GROW|unix.F_SEAL_SHRINK)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("sample %s: %w", name, err), f.Close())
	}
	return f, nil
}

// event is what the kernel would have told about the sample, in a folder that no host has.
func (f sample) event(id uint64) (event.Event, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.file.Fd()), &st); err != nil {
		return event.Event{}, fmt.Errorf("sample %s: %w", f.name, err)
	}
	return event.Event{
		ID: id, Type: event.Open, Time: time.Now(),
		Actor: event.Process{PID: int32(os.Getpid()), Token: 1, Comm: "keepout-trial"},
		File: event.File{
			Version: event.Version{
				Dev: st.Dev, Handle: f.name, Ino: st.Ino, Size: st.Size,
				MtimeNS: st.Mtim.Nano(), CtimeNS: st.Ctim.Nano(),
			},
			Path: "/keepout-trial/" + f.name, Mode: st.Mode,
		},
	}, nil
}
