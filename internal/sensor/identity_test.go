package sensor

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/sensor/fanotify"
	"github.com/keepout-security/keepout/internal/testenv"
)

func TestIdentityFollowsTheFile(t *testing.T) {
	t.Parallel()
	dir := realPath(t, t.TempDir())
	one, two := filepath.Join(dir, "one"), filepath.Join(dir, "two")
	first := touch(t, one)
	if first.Path != one || first.Size != 0 || first.Mode&unix.S_IFMT != unix.S_IFREG || first.mount == 0 ||
		int(first.UID) != os.Geteuid() {
		t.Errorf("identified as %+v", first)
	}
	if again := touch(t, one); again != first {
		t.Errorf("looked at twice:\n%+v\n%+v", first, again)
	}

	if err := os.Rename(one, two); err != nil {
		t.Fatal(err)
	}
	moved := touch(t, two)
	if moved.Path != two {
		t.Errorf("path after the rename: %q", moved.Path)
	}
	if moved.Handle != first.Handle || moved.Dev != first.Dev || moved.Ino != first.Ino {
		t.Errorf("a rename changed who it is:\n%+v\n%+v", first.Version, moved.Version)
	}

	linked := filepath.Join(dir, "linked")
	if err := os.Link(two, linked); err != nil {
		t.Fatal(err)
	}
	if l := touch(t, linked); l.Handle != first.Handle || l.Ino != first.Ino {
		t.Errorf("a second name is another file: %+v", l.Version)
	}
	if other := touch(t, filepath.Join(dir, "other")); other.Version == moved.Version || other.Ino == moved.Ino {
		t.Errorf("two files are one: %+v", other.Version)
	}
}

func TestIdentityChangesWithTheContent(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "file")
	write := func(text string) event.Version {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return touch(t, path).Version
	}
	before := write("harmless")
	if longer := write("harmless?"); longer == before || longer.Handle != before.Handle {
		t.Errorf("another size:\n%+v\n%+v", before, longer)
	}
	before = write("harmless")
	// The same size; the kernel's clock for times is coarse, so wait until it has moved on.
	deadline := time.Now().Add(10 * time.Second)
	for write("harmful!") == before {
		if time.Now().After(deadline) {
			t.Fatal("a write of the same size leaves the version alone")
		}
		time.Sleep(time.Millisecond)
	}
	after := touch(t, path).Version
	if err := os.Chtimes(path, time.Unix(0, before.MtimeNS), time.Unix(0, before.MtimeNS)); err != nil {
		t.Fatal(err)
	}
	if forged := touch(t, path).Version; forged.MtimeNS != before.MtimeNS || forged == before || forged == after {
		t.Errorf("setting mtime back hides the write:\n%+v\n%+v", before, forged)
	}
}

func TestPathHintOfADeletedFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(realPath(t, t.TempDir()), "file")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if got, want := pathHint(int(f.Fd()), new(names)), path+" (deleted)"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := pathHint(-1, new(names)); got != "" {
		t.Errorf("no descriptor: %q", got)
	}
	if _, err := identify(-1, new(names)); err == nil {
		t.Error("no descriptor is identified")
	}
}

// TestHandleKey: the handle that a notify event carries and the one that identify finds are the same key.
func TestHandleKey(t *testing.T) {
	t.Parallel()
	obj := touch(t, filepath.Join(t.TempDir(), "file"))
	if len(obj.Handle) <= 4 {
		t.Fatalf("the temporary folder's file system has no handles: %q", obj.Handle)
	}
	h := fanotify.Handle{Type: int32(nativeUint32(obj.Handle)), Bytes: obj.Handle[4:]}
	if got := handleKey(h); got != obj.Handle {
		t.Errorf("got %q, want %q", got, obj.Handle)
	}
	long := fanotify.Handle{Bytes: string(make([]byte, maxHandle+1))}
	if _, err := openHandle(unix.AT_FDCWD, long, unix.O_PATH); err == nil {
		t.Error("an overlong handle is opened")
	}
}

// TestOpenHandle finds a file again by its handle, under its new name.
func TestOpenHandle(t *testing.T) {
	t.Parallel()
	testenv.Need(t, testenv.Root)
	dir := realPath(t, t.TempDir())
	obj := touch(t, filepath.Join(dir, "old"))
	if err := os.Rename(filepath.Join(dir, "old"), filepath.Join(dir, "new")); err != nil {
		t.Fatal(err)
	}
	root, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	fd, err := openHandle(int(root.Fd()), fanotify.Handle{
		Type: int32(nativeUint32(obj.Handle)), Bytes: obj.Handle[4:],
	}, unix.O_PATH)
	if err != nil {
		t.Fatal(err)
	}
	defer closeFD(fd)
	if got, want := pathHint(fd, new(names)), filepath.Join(dir, "new"); got != want {
		t.Errorf("found at %q, want %q", got, want)
	}
}

// TestActors: who is behind an event is the same whether it is looked at through a pidfd of the kernel's, for the first
// time, or again; and a number stands for nobody as soon as its process is reaped.
func TestActors(t *testing.T) {
	t.Parallel()
	self := int32(os.Getpid())
	fd, err := unix.PidfdOpen(int(self), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer closeFD(fd)
	var who actors
	defer who.close()
	p := who.of(self)
	if p.PID != self || int(p.UID) != os.Getuid() {
		t.Errorf("this process is %+v", p)
	}
	if p.PPID != 0 && (int(p.PPID) != os.Getppid() || int(p.GID) != os.Getgid()) { // since Linux 6.13
		t.Errorf("parent and group: %+v, want %d and %d", p, os.Getppid(), os.Getgid())
	}
	held := who.seen[self%actorSlots].fd
	if again := who.of(self); again != p || who.seen[self%actorSlots].fd != held {
		t.Errorf("looked at twice: %+v, %+v", p, again)
	}
	if behind := actorBehind(self, fd); behind != p {
		t.Errorf("behind a pidfd: %+v, want %+v", behind, p)
	}

	child := exec.CommandContext(t.Context(), "cat")
	in, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	pid := int32(child.Process.Pid)
	q := who.of(pid)
	if q.UID == unknownUID || q.Token == p.Token && p.Token != 0 {
		t.Errorf("the child is %+v, its parent %+v", q, p)
	}
	in.Close()
	if err := child.Wait(); err != nil {
		t.Error(err)
	}
	for _, gone := range []int32{pid, 0, -1} {
		if q := who.of(gone); q != (event.Process{PID: gone, UID: unknownUID, GID: unknownUID}) {
			t.Errorf("nobody is %+v", q)
		}
	}
	if left := who.seen[pid%actorSlots]; left.pid == pid {
		t.Error("a process that was reaped is still held")
	}
	if q := actorBehind(7, fanotify.NoFD); q != (event.Process{PID: 7, UID: unknownUID, GID: unknownUID}) {
		t.Errorf("without a pidfd: %+v", q)
	}
}

// TestActorsAreBounded: another process takes the place, and the descriptor, of the one before it.
func TestActorsAreBounded(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	before, err := unix.FcntlInt(w.Fd(), unix.F_DUPFD_CLOEXEC, 0) // in place of a pidfd: its end can be seen
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
	var who actors
	self := int32(os.Getpid())
	place := &who.seen[self%actorSlots]
	*place = seenActor{pid: self + actorSlots, fd: before}
	if p := who.of(self); p.UID == unknownUID || place.pid != self {
		t.Errorf("it is %+v, and held is %+v", p, *place)
	}
	if n, err := r.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("the descriptor of the one before is still open: %d, %v", n, err)
	}
	if who.close(); *place != (seenActor{}) {
		t.Errorf("%+v is still held", *place)
	}
}

func TestComm(t *testing.T) {
	t.Parallel()
	if got := Comm(int32(os.Getpid())); got == "" || len(got) > 15 || got[len(got)-1] == '\n' {
		t.Errorf("this process is called %q", got)
	}
	if got := Comm(-1); got != "" {
		t.Errorf("no process is called %q", got)
	}
}
