package root

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/supervisor"
	"github.com/keepout-security/keepout/internal/testenv"
	"github.com/keepout-security/keepout/test/testhost"
)

// Two contents of the same size, of which hashlist knows the second.
var (
	staleGood = strings.Repeat("fine", 1024)
	staleBad  = strings.Repeat("evil", 1024)
)

// settle is longer than what must have passed since a change for the next one to be seen in a file's times.
const settle = 30 * time.Millisecond

// change is one way to turn what path holds into the other content. spare is a folder on the same file system that
// nobody watches. What it returns ends the change; until then its writer may still be there.
type change struct {
	name string
	make func(path, spare, content string) (end func(), err error)
}

var changes = []change{
	{"shared mapping", func(path, _, content string) (func(), error) {
		end, err := mapAndStore(path, content)
		if err == nil {
			end()
		}
		return nothing, err
	}},
	{"shared mapping that stays", func(path, _, content string) (func(), error) { return mapAndStore(path, content) }},
	{"shared mapping that was read before", func(path, _, content string) (func(), error) {
		return mapAndStore(path, content, readFirst)
	}},
	{"write in place", func(path, _, content string) (func(), error) {
		return nothing, rewrite(path, unix.O_WRONLY, content)
	}},
	{"truncate and write", func(path, _, content string) (func(), error) {
		return nothing, rewrite(path, unix.O_WRONLY|unix.O_TRUNC, content)
	}},
	{"write by another name", func(path, spare, content string) (func(), error) {
		name := filepath.Join(spare, "link-"+filepath.Base(path))
		if err := os.Link(path, name); err != nil {
			return nothing, err
		}
		defer func() { _ = os.Remove(name) }()
		return nothing, rewrite(name, unix.O_WRONLY, content)
	}},
	{"rename over", func(path, spare, content string) (func(), error) {
		name := filepath.Join(spare, "new-"+filepath.Base(path))
		if err := os.WriteFile(name, []byte(content), 0o755); err != nil {
			return nothing, err
		}
		return nothing, os.Rename(name, path)
	}},
	{"copy in the kernel", func(path, spare, content string) (func(), error) {
		name := filepath.Join(spare, "from-"+filepath.Base(path))
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			return nothing, err
		}
		return nothing, copyRange(name, path)
	}},
}

func nothing() {}

// readFirst reads the page, which lets the store to it go unnoticed where nothing watches for that (tmpfs).
func readFirst(m []byte) { _ = strings.Clone(string(m)) }

// mapAndStore leaves the file mapped until end.
func mapAndStore(path, content string, before ...func(m []byte)) (end func(), err error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nothing, err
	}
	m, err := unix.Mmap(fd, 0, len(content), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	_ = unix.Close(fd) // the mapping is enough of a writer
	if err != nil {
		return nothing, err
	}
	for _, f := range before {
		f(m)
	}
	copy(m, content)
	return func() { _ = unix.Munmap(m) }, nil
}

func rewrite(path string, flags int, content string) error {
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	_, err = unix.Pwrite(fd, []byte(content), 0)
	return errors.Join(err, unix.Close(fd))
}

func copyRange(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	out, err := os.OpenFile(to, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	n, err := unix.CopyFileRange(int(in.Fd()), nil, int(out.Fd()), nil, len(staleBad), 0)
	if err == nil && n != len(staleBad) {
		err = fmt.Errorf("copied %d bytes", n)
	}
	return errors.Join(err, out.Close())
}

// staleHost watches one folder of a file system with hashlist; the other is the spare one.
func staleHost(t *testing.T, fs string) (h *testhost.Host, watched, spare string) {
	t.Helper()
	watched, spare = filepath.Join(fs, "watched"), filepath.Join(fs, "spare")
	must(t, os.MkdirAll(watched, 0o755))
	must(t, os.MkdirAll(spare, 0o755))
	list := hashlist(t, staleBad)
	list.Extra = "on_failure: deny" // what nobody could judge in time on a busy machine is not let pass
	return testhost.Start(t, testhost.Options{
		Watch: watched, Life: 5 * time.Minute, Providers: []testhost.Provider{list},
	}), watched, spare
}

// kept opens a file until the kernel answers for it by itself.
func kept(t testing.TB, h *testhost.Host, path string) {
	t.Helper()
	time.Sleep(settle)
	before := h.Status().Memory.Marked
	until(t, "the kernel remembers", func() bool {
		must(t, open(path))
		return h.Status().Memory.Marked > before
	})
	asked := h.Status().Verdicts.Allowed
	must(t, open(path))
	if now := h.Status().Verdicts.Allowed; now != asked {
		t.Errorf("an open that the kernel remembers was judged again (%d, %d)", asked, now)
	}
}

// TestNoStaleVerdict: however a file is changed whose verdict is remembered, in the kernel or in the core, the next
// open of it, and the next exec, gets the verdict on what it holds now.
func TestNoStaleVerdict(t *testing.T) {
	need(t)
	for fsName, mounting := range map[string]func(t testing.TB) string{
		"tmpfs": func(t testing.TB) string { return testenv.Tmpfs(t, "64m") }, "ext4": ext4,
	} {
		t.Run(fsName, func(t *testing.T) {
			h, watched, spare := staleHost(t, mounting(t))
			for i, c := range changes {
				t.Run(strings.ReplaceAll(c.name, " ", "-"), func(t *testing.T) {
					path := write(t, filepath.Join(watched, strconv.Itoa(i)), staleGood, 0o755)
					kept(t, h, path)
					end, err := c.make(path, spare, staleBad)
					must(t, err)
					defer end()
					denied(t, open(path))
					denied(t, execute(t, path))
				})
			}
		})
	}
}

// execute starts a program and returns why the kernel did not.
func execute(t testing.TB, path string) error {
	t.Helper()
	return exec.CommandContext(t.Context(), path).Run()
}

// TestChangedModeIsAskedAgain: an exec is judged whatever the kernel remembers of opens, and a changed mode or owner
// makes another version, of which nothing is remembered in the core.
func TestChangedModeIsAskedAgain(t *testing.T) {
	need(t)
	h, watched, _ := staleHost(t, ext4(t))
	path := write(t, filepath.Join(watched, "program"), staleGood, 0o644)
	kept(t, h, path)
	must(t, os.Chmod(path, 0o755))
	before := h.Status()
	if err := execute(t, path); !errors.Is(err, unix.ENOEXEC) {
		t.Errorf("got %v, want that the kernel finds no program", err)
	}
	after := h.Status()
	if asked := after.Providers[0].Counters.Delivered - before.Providers[0].Counters.Delivered; asked != 1 {
		t.Errorf("the provider was asked %d times about the exec of a changed file", asked)
	}
	// Unchanged, it is not: the answer comes from the core's memory, and the event is recorded.
	time.Sleep(settle)
	_ = execute(t, path)
	before = h.Status()
	_ = execute(t, path)
	after = h.Status()
	if after.Verdicts.Remembered == before.Verdicts.Remembered {
		t.Error("the exec of an unchanged program was not answered from memory")
	}
	if rec := h.Record(path); rec.Verdict.Reason != event.ReasonRemembered || len(rec.Verdict.Ballots) != 1 {
		t.Errorf("record of a remembered exec: %+v", rec.Verdict)
	}
}

// TestWriterWaitsBriefly: a writer who comes to a file that the kernel remembers waits for the core to let go of it,
// and no longer; and a stopped core does not hold it longer than the stall limit.
func TestWriterWaitsBriefly(t *testing.T) {
	need(t)
	h, watched, _ := staleHost(t, testenv.Tmpfs(t, "64m"))
	path := write(t, filepath.Join(watched, "f"), staleGood, 0o644)
	kept(t, h, path)
	before := h.Status().Memory.Broken
	must(t, rewrite(path, unix.O_WRONLY, staleGood))
	if after := h.Status().Memory.Broken; after == before {
		t.Error("no lease was broken")
	}
	kept(t, h, path)
	core := h.Status().PID
	must(t, unix.Kill(core, unix.SIGSTOP))
	done := make(chan error, 1)
	go func() { done <- rewrite(path, unix.O_WRONLY, staleBad) }()
	allowed(t, result(t, done)) // the kernel itself would make it wait for fs.lease-break-time, 45 s
	until(t, "a new core works", func() bool {
		s, err := h.TryStatus()
		return err == nil && s.PID != core && len(s.Providers) == 1 && s.Providers[0].State == supervisor.Running
	})
	denied(t, open(path))
}

// raceTime is how long the race below runs; KEEPOUT_RACE makes it longer.
func raceTime(t testing.TB) time.Duration {
	t.Helper()
	text, ok := os.LookupEnv("KEEPOUT_RACE")
	if !ok {
		return 20 * time.Second
	}
	d, err := time.ParseDuration(text)
	must(t, err)
	return d
}

// contested is a file that one goroutine changes and others open.
type contested struct {
	mu   sync.RWMutex
	path string
	bad  bool // what it holds, as of the last change that has ended
	how  string
	when time.Time
}

// TestRaceForStaleVerdicts changes files in random ways while others open them. Whoever opens after a change has ended,
// and before the next has begun, must get the verdict on what is there.
func TestRaceForStaleVerdicts(t *testing.T) {
	need(t)
	h, watched, spare := staleHost(t, ext4(t)) // on tmpfs the core remembers nothing
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	files := make([]*contested, 8)
	for i := range files {
		files[i] = &contested{path: write(t, filepath.Join(watched, strconv.Itoa(i)), staleGood, 0o644)}
	}
	stop := make(chan struct{})
	time.AfterFunc(raceTime(t), func() { close(stop) })
	var checked, changed, stale, refused atomic.Int64
	var wg sync.WaitGroup
	for i, f := range files {
		rng := rand.New(rand.NewPCG(seed, uint64(i)))
		wg.Go(func() {
			for goesOn(stop) {
				time.Sleep(time.Duration(rng.IntN(40)) * time.Millisecond)
				f.flip(t, rng, spare)
				changed.Add(1)
			}
		})
	}
	for i := range 6 {
		rng := rand.New(rand.NewPCG(seed, 100+uint64(i)))
		wg.Go(func() {
			for goesOn(stop) {
				f := files[rng.IntN(len(files))]
				if i < 2 {
					_ = open(f.path) // whatever comes of it: the race is what matters
					continue
				}
				f.mu.RLock()
				err := open(f.path)
				switch {
				case f.bad && err == nil:
					if stale.Add(1) <= 5 {
						t.Errorf("%s was opened %v after it was changed: %s", f.path, time.Since(f.when), f.how)
					}
				case !f.bad && err != nil:
					refused.Add(1)
				}
				f.mu.RUnlock()
				checked.Add(1)
			}
		})
	}
	wg.Wait()
	s := h.Status()
	t.Logf("%d changes, %d opens checked; the kernel was made to remember %d times, %d leases were broken, %d opens "+
		"answered from the core's memory", changed.Load(), checked.Load(), s.Memory.Marked, s.Memory.Broken,
		s.Verdicts.Remembered)
	late := s.Verdicts.Timeout + s.Verdicts.Unavailable // refused by policy, on a machine that was too busy
	if stale.Load() > 0 || refused.Load() > 0 && late == 0 {
		t.Errorf("%d bad files were opened, %d good ones refused; seed %d; %+v", stale.Load(), refused.Load(), seed,
			s.Verdicts)
	}
	if s.Memory.Marked == 0 || s.Memory.Broken == 0 || s.Verdicts.Remembered == 0 {
		t.Error("the race never met what is remembered")
	}
}

func goesOn(stop <-chan struct{}) bool {
	select {
	case <-stop:
		return false
	default:
		return true
	}
}

// flip changes the content in a random way. A file that may not be opened is emptied by its name first.
func (f *contested) flip(t *testing.T, rng *rand.Rand, spare string) {
	t.Helper()
	f.mu.Lock()
	content := staleBad
	if f.bad {
		content = staleGood
		if err := os.Truncate(f.path, 0); err != nil {
			t.Errorf("truncate: %v", err)
		}
	}
	c := changes[rng.IntN(len(changes))]
	if f.bad && strings.HasPrefix(c.name, "shared") {
		c = changes[3] // an emptied file has no page to store to
	}
	end, err := c.make(f.path, spare, content)
	if err != nil {
		t.Errorf("%s: %v", c.name, err)
		end = nothing
	}
	f.bad, f.how, f.when = content == staleBad, c.name, time.Now()
	f.mu.Unlock()
	end()
}
