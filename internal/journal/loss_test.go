package journal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/keepout-security/keepout/internal/testenv"
)

func TestQueueOverflow(t *testing.T) {
	dir := t.TempDir()
	disk := &moody{hold: make(chan struct{})}
	j := start(t, dir, Limits{}, disk)
	j.Append(plain(1))
	// The drain takes the first record and blocks in its write; then the queue fills up.
	release := sync.OnceFunc(func() { close(disk.hold) })
	t.Cleanup(release) // before the journal is closed, which waits for the write
	eventually(t, "the drain is in its write", func() bool { return disk.held.Load() == 1 })
	const extra = 100
	began := time.Now()
	for id := range uint64(QueueLen + extra) {
		j.Append(plain(id + 2))
	}
	if d := time.Since(began); d > 5*time.Second {
		t.Errorf("appending to a stuck journal took %v", d)
	}
	if j.Lost() != extra {
		t.Fatalf("lost %d, want %d", j.Lost(), extra)
	}
	release()
	stop(t, j)
	intact(t, dir)
	entries := all(t, dir)
	if n := len(events(entries)); n != QueueLen+1 {
		t.Errorf("%d events kept, want %d", n, QueueLen+1)
	}
	found := notes(entries, CodeLost)
	want := fmt.Sprintf("%d because the queue was full, 0 because", extra)
	if len(found) != 1 || !strings.Contains(found[0].Detail, want) {
		t.Errorf("notes are %+v", found)
	}
}

func TestFullDisk(t *testing.T) {
	for _, tt := range []struct {
		name         string
		short, stuck bool
		begun        bool // there is a file already
	}{
		{name: "nothing written yet"},
		{name: "write refused", begun: true},
		{name: "write cut short", begun: true, short: true},
		{name: "write cut short and not undone", begun: true, short: true, stuck: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			disk := &moody{}
			j := start(t, dir, Limits{}, disk)
			if tt.begun {
				j.Append(plain(1))
				mustSync(t, j)
			}
			disk.short.Store(tt.short)
			disk.stuck.Store(tt.stuck)
			disk.full.Store(true)
			const lost = 5
			for id := range uint64(lost) {
				j.Append(plain(100 + id))
			}
			eventually(t, "the losses are counted", func() bool { return j.Lost() == lost })
			disk.full.Store(false)
			disk.stuck.Store(false)
			before := j.Head().Seq
			eventually(t, "a note without any new record", func() bool { return j.Head().Seq > before })
			j.Append(plain(2))
			stop(t, j)
			intact(t, dir)
			entries := all(t, dir)
			found := notes(entries, CodeLost)
			if len(found) != 1 || !strings.Contains(found[0].Detail, "0 because the queue was full, 5 because") ||
				!strings.Contains(found[0].Detail, syscall.ENOSPC.Error()) {
				t.Errorf("notes are %+v", found)
			}
			want := []uint64{1, 2}
			if !tt.begun {
				want = want[1:]
			}
			if ids := events(entries); !slices.Equal(ids, want) {
				t.Errorf("events are %v, want %v", ids, want)
			}
		})
	}
}

func TestFullDiskInRotation(t *testing.T) {
	dir := t.TempDir()
	disk := &moody{}
	j := start(t, dir, Limits{FileBytes: 3000, Files: 100}, disk)
	for round := range uint64(4) {
		for id := range uint64(5) {
			j.Append(plain(10*round + id))
		}
		mustSync(t, j)
		disk.short.Store(true)
		disk.stuck.Store(round%2 == 0)
		disk.full.Store(true)
		lost := j.Lost()
		j.Append(plain(1000))
		eventually(t, "the loss is counted", func() bool { return j.Lost() > lost })
		disk.full.Store(false)
		disk.stuck.Store(false)
		seq := j.Head().Seq
		eventually(t, "the loss is told", func() bool { return j.Head().Seq > seq })
	}
	stop(t, j)
	intact(t, dir)
	entries := all(t, dir)
	if n := len(events(entries)); n != 20 {
		t.Errorf("%d events, want 20", n)
	}
	if n := len(notes(entries, CodeLost)); n != 4 {
		t.Errorf("%d notes of losses, want 4", n)
	}
}

func TestFullTmpfs(t *testing.T) {
	testenv.Need(t, testenv.Root, testenv.MountNS)
	mount := testenv.Tmpfs(t, "64k")
	dir := filepath.Join(mount, "journal")
	j := start(t, dir, Limits{}, osDisk{})
	hog := filepath.Join(mount, "hog")
	j.Append(plain(1))
	mustSync(t, j)
	f, err := os.Create(hog)
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	// The file's last page still has room for a few lines.
	for j.Lost() == 0 {
		j.Append(plain(2))
		if err := j.Sync(); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(hog); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the loss is told", func() bool { return len(notes(all(t, dir), CodeLost)) == 1 })
	stop(t, j)
	intact(t, dir)
}

func TestCloseOnAFullDisk(t *testing.T) {
	disk := &moody{}
	j := start(t, t.TempDir(), Limits{}, disk)
	disk.full.Store(true)
	j.Append(plain(1))
	err := j.Close()
	if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "1 records were lost") {
		t.Errorf("Close = %v, want the loss and ENOSPC", err)
	}
	if again := j.Close(); again == nil || again.Error() != err.Error() {
		t.Errorf("second Close = %v, want the same", again)
	}
}

func TestSyncFailure(t *testing.T) {
	dir := t.TempDir()
	disk := &moody{}
	j := start(t, dir, Limits{}, disk)
	disk.unsync.Store(true)
	for id := range uint64(3) {
		j.Append(plain(id + 1))
		if err := j.Sync(); !errors.Is(err, syscall.EIO) {
			t.Fatalf("Sync = %v, want EIO", err)
		}
	}
	disk.unsync.Store(false)
	eventually(t, "a sync that works", func() bool { return j.Sync() == nil })
	stop(t, j)
	if found := notes(all(t, dir), CodeSyncFailed); len(found) != 1 {
		t.Errorf("%d notes of one outage, want 1: %+v", len(found), found)
	}
	intact(t, dir)
}

func TestSyncsByItselfAndThenRests(t *testing.T) {
	disk := &moody{}
	j := start(t, t.TempDir(), Limits{}, disk)
	j.Append(plain(1))
	eventually(t, "an fsync without being asked", func() bool { return disk.syncs.Load() == 1 })
	j.Append(plain(2))
	eventually(t, "another", func() bool { return disk.syncs.Load() == 2 })
	stop(t, j)
	if n := disk.syncs.Load(); n != 3 {
		t.Errorf("%d fsyncs, want one after each record and one at the end", n)
	}
}

func TestAfterClose(t *testing.T) {
	dir := t.TempDir()
	j := start(t, dir, Limits{}, osDisk{})
	j.Append(plain(1))
	stop(t, j)
	j.Append(plain(2))
	j.Note(Note{Code: "late"})
	mustSync(t, j)
	if j.Lost() != 2 {
		t.Errorf("lost %d, want 2", j.Lost())
	}
	if ids := events(all(t, dir)); !slices.Equal(ids, []uint64{1}) {
		t.Errorf("events are %v", ids)
	}
}

func TestManyWriters(t *testing.T) {
	dir := t.TempDir()
	j := start(t, dir, Limits{FileBytes: 64 << 10, Files: 1000}, osDisk{})
	const writers, each = 8, 200
	var wg sync.WaitGroup
	for w := range uint64(writers) {
		wg.Go(func() {
			for i := range uint64(each) {
				j.Append(plain(w*each + i))
				if i%50 == 0 {
					mustSync(t, j)
				}
			}
		})
	}
	// Readers beside the writers see whole lines and an unbroken chain.
	for range 5 {
		if r, err := Verify(dir); err != nil || !r.Intact() {
			t.Errorf("Verify beside writers: %v, %v", r.Breaks, err)
		}
		all(t, dir)
	}
	wg.Wait()
	stop(t, j)
	intact(t, dir)
	ids := events(all(t, dir))
	slices.Sort(ids)
	if ids = slices.Compact(ids); len(ids) != writers*each || j.Lost() != 0 {
		t.Errorf("%d different events, %d lost, want %d and 0", len(ids), j.Lost(), writers*each)
	}
}

func mustSync(t testing.TB, j *Journal) {
	t.Helper()
	if err := j.Sync(); err != nil {
		t.Error(err)
	}
}

// A half-written line that could not be undone is cut off before its file is left for the next.
func TestRotationLeavesNoHalfLine(t *testing.T) {
	dir := t.TempDir()
	j := start(t, dir, Limits{}, osDisk{})
	j.Append(plain(1))
	stop(t, j)
	info, err := os.Stat(filepath.Join(dir, fileName(1)))
	if err != nil {
		t.Fatal(err)
	}
	small := Note{Code: "small"}
	o := small.OCSF(testOrigin)
	o.Unmapped.Keepout.Seq, o.Unmapped.Keepout.Prev = 2, noHash
	line, err := newEncoder(testOrigin).appendLine(nil, &o)
	if err != nil {
		t.Fatal(err)
	}
	// The small note fits into the file, the note about its loss does not.
	disk := &moody{}
	j = start(t, dir, Limits{FileBytes: info.Size() + int64(len(line)) + 100}, disk)
	disk.short.Store(true)
	disk.stuck.Store(true)
	disk.full.Store(true)
	j.Note(small)
	eventually(t, "the loss is counted", func() bool { return j.Lost() == 1 })
	disk.full.Store(false)
	disk.stuck.Store(false)
	eventually(t, "the loss is told", func() bool { return j.Head().Seq == 2 })
	stop(t, j)
	if r := intact(t, dir); r.Files != 2 {
		t.Errorf("%d files, want the note about the loss in the second", r.Files)
	}
}

func TestRotationSyncs(t *testing.T) {
	dir := t.TempDir()
	disk := &moody{}
	j, err := open(dir, Limits{FileBytes: 5000, Files: 100}, environment{
		disk: disk, origin: testOrigin, now: time.Now, every: time.Hour,
	})
	if err != nil {
		t.Fatal(err)
	}
	for id := range uint64(12) {
		j.Append(plain(id + 1))
	}
	stop(t, j)
	if r, n := intact(t, dir), disk.syncs.Load(); r.Files != 3 || n != 3 {
		t.Errorf("%d fsyncs of %d files, want each of three synced", n, r.Files)
	}
}
