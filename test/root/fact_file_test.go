package root

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/internal/testenv"
)

// kinds are the file systems on which the facts about files are proved.
func kinds() map[string]func(t testing.TB) string {
	return map[string]func(t testing.TB) string{
		"tmpfs": func(t testing.TB) string { t.Helper(); return testenv.Tmpfs(t, "16m") },
		"ext4":  ext4,
	}
}

// TestFactHandleIsIdentity: a rename and a hard link keep the handle; a file that is renamed over another one
// keeps its own; a new file under an old name has a new one, even if the inode number is used again.
func TestFactHandleIsIdentity(t *testing.T) {
	need(t)
	for name, folder := range kinds() {
		t.Run(name, func(t *testing.T) {
			dir := folder(t)
			a, b, c := filepath.Join(dir, "a"), filepath.Join(dir, "b"), filepath.Join(dir, "c")
			write(t, a, "a", 0o644)
			write(t, b, "b", 0o644)
			handleA, handleB := handleOf(t, a), handleOf(t, b)
			if handleA == handleB {
				t.Fatal("two files have one handle")
			}
			must(t, os.Rename(a, c))
			must(t, os.Link(c, a))
			if handleOf(t, c) != handleA || handleOf(t, a) != handleA {
				t.Error("a rename or a hard link changed the handle")
			}
			must(t, os.Rename(c, b))
			if handleOf(t, b) != handleA {
				t.Error("a rename over another file did not keep the handle")
			}
			must(t, os.Remove(a))
			must(t, os.Remove(b))
			for range 8 {
				write(t, a, "new", 0o644)
				if h := handleOf(t, a); h == handleA || h == handleB {
					t.Error("a handle was used again")
				}
				must(t, os.Remove(a))
			}
		})
	}
}

// stamp is what fanotify and stat(2) let us compare between two opens.
type stamp struct {
	size         int64
	mtime, ctime unix.Timespec
}

func stampOf(t testing.TB, path string) stamp {
	t.Helper()
	var st unix.Stat_t
	must(t, unix.Stat(path, &st))
	return stamp{st.Size, st.Mtim, st.Ctim}
}

// TestFactMappedStoreMayLeaveNoTrace: the first store through a shared mapping to a clean page sets the
// times, a later one to the page that is dirty already changes the content and nothing else. So equal size
// and times do not prove equal content, and no verdict is remembered by them.
func TestFactMappedStoreMayLeaveNoTrace(t *testing.T) {
	need(t)
	for name, folder := range kinds() {
		t.Run(name, func(t *testing.T) {
			path := write(t, filepath.Join(folder(t), "file"), "content", 0o644)
			page := mapped(t, path)
			clean := stampOf(t, path)
			page[0] = 'C'
			dirty := stampOf(t, path)
			page[1] = 'O'
			again := stampOf(t, path)
			t.Logf("first store to a clean page changes the times: %v", clean != dirty)
			if again != dirty {
				t.Errorf("a store to a dirty page changed %+v to %+v: stronger than the design assumes", dirty, again)
			}
			b, err := os.ReadFile(path)
			must(t, err)
			if string(b) != "COntent" {
				t.Errorf("content %q", b)
			}
		})
	}
}

// mapped maps a file for shared writing.
func mapped(t testing.TB, path string) []byte {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	info, err := f.Stat()
	must(t, err)
	page, err := unix.Mmap(int(f.Fd()), 0, int(info.Size()), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	must(t, err)
	must(t, f.Close())
	t.Cleanup(func() { must(t, unix.Munmap(page)) })
	return page
}
