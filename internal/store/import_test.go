package store_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/keepout-security/keepout/internal/health"
	"github.com/keepout-security/keepout/internal/rollback"
	"github.com/keepout-security/keepout/internal/simdisk"
	"github.com/keepout-security/keepout/internal/store"
	"github.com/keepout-security/keepout/internal/testenv"
)

func TestMain(m *testing.M) { os.Exit(testenv.PrivateMounts(m)) }

// small keeps bombs harmless.
var small = store.Limits{Bytes: 1 << 20, Entries: 50, Depth: 4}

func open(t *testing.T) *store.Store {
	t.Helper()
	s, err := store.Open(store.Config{Dir: filepath.Join(t.TempDir(), "store"), Limits: small})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// code returns the code of a refusal.
func code(err error) string {
	var p health.Problem
	if !errors.As(err, &p) {
		return fmt.Sprintf("no code: %v", err)
	}
	if p.Fix == "" || p.Title == "" {
		return "a refusal without a reason or a next step"
	}
	return p.Code
}

// item is one entry of a package to be made.
type item struct {
	name string
	mode fs.FileMode
	body string
	link string
	kind byte // of tar; 0 for a file, or a folder when the name ends with a slash
}

// engine is a good one.
func engine() []item {
	return []item{
		{name: "provider.yaml", mode: 0o640, body: "version: 1\n"},
		{name: "acme", mode: 0o750, body: "program"},
		{name: "lib/", mode: 0o700},
		{name: "lib/rules.db", mode: 0o600, body: strings.Repeat("r", 70_000)},
		{name: "lib/empty/", mode: 0o755},
		{name: "lib/nothing", mode: 0o644},
		{name: "größe 1.txt", mode: 0o644, body: "x"},
	}
}

func pack(t *testing.T, items []item) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, it := range items {
		h := &tar.Header{Name: it.name, Mode: int64(it.mode.Perm()), Size: int64(len(it.body)), Typeflag: tar.TypeReg}
		if it.mode&fs.ModeSetuid != 0 {
			h.Mode |= 0o4000
		}
		if strings.HasSuffix(it.name, "/") {
			h.Typeflag = tar.TypeDir
		}
		if it.kind != 0 {
			h.Typeflag, h.Linkname = it.kind, it.link
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(it.body)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func compress(t *testing.T, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// lay makes a package's folder.
func lay(t *testing.T, items []item) string {
	t.Helper()
	dir := t.TempDir()
	for _, it := range items {
		name := filepath.Join(dir, it.name)
		var err error
		if strings.HasSuffix(it.name, "/") {
			err = os.MkdirAll(name, 0o755)
		} else {
			if err = os.MkdirAll(filepath.Dir(name), 0o755); err == nil {
				err = os.WriteFile(name, []byte(it.body), 0o600)
			}
			if err == nil {
				err = os.Chmod(name, it.mode)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestSameTreeSameDigest(t *testing.T) {
	t.Parallel()
	s := open(t)
	dir := lay(t, engine())
	a, err := s.Import(rollback.Engine, dir)
	if err != nil {
		t.Fatal(err)
	}
	if a.Files != 5 || a.Already || a.Bytes != 11+7+70_000+1 {
		t.Errorf("package %+v", a)
	}
	again, err := s.Import(rollback.Engine, dir)
	if err != nil || again.Digest != a.Digest || !again.Already {
		t.Errorf("again: %+v, %v", again, err)
	}
	reversed := engine()
	for i, j := 0, len(reversed)-1; i < j; i, j = i+1, j-1 {
		reversed[i], reversed[j] = reversed[j], reversed[i]
	}
	for _, it := range reversed {
		it.name = "./" + it.name
	}
	for name, archive := range map[string][]byte{
		"tar": pack(t, engine()), "another order": pack(t, reversed), "gzip": compress(t, pack(t, engine())),
	} {
		b, err := s.ImportArchive(rollback.Engine, name, bytes.NewReader(archive))
		if err != nil || b.Digest != a.Digest || !b.Already {
			t.Errorf("%s: %+v, %v; want %s", name, b, err, a.Digest)
		}
	}
	other := engine()
	other[1].mode = 0o640 // not executable
	other = append(other, item{name: "acme2", mode: 0o755})
	c, err := s.ImportArchive(rollback.Engine, "other", bytes.NewReader(pack(t, other)))
	if err != nil || c.Digest == a.Digest {
		t.Errorf("another tree: %+v, %v", c, err)
	}
	d, err := s.Import(rollback.Content, dir)
	if err != nil || d.Digest == a.Digest {
		t.Errorf("the same as content: %+v, %v", d, err)
	}
}

func TestStoredModes(t *testing.T) {
	t.Parallel()
	s := open(t)
	p, err := s.Import(rollback.Engine, lay(t, engine()))
	if err != nil {
		t.Fatal(err)
	}
	root, err := s.Path(p.Digest)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]fs.FileMode{
		"": 0o555 | fs.ModeDir, "lib": 0o555 | fs.ModeDir, "provider.yaml": 0o444, "acme": 0o555, "lib/rules.db": 0o444,
		"../..": 0o711 | fs.ModeDir, "..": 0o555 | fs.ModeDir,
	} {
		info, err := os.Stat(filepath.Join(root, name))
		if err != nil || info.Mode() != want {
			t.Errorf("%q is %v (%v), want %v", name, info.Mode(), err, want)
		}
	}
}

func TestSingleFile(t *testing.T) {
	t.Parallel()
	s := open(t)
	name := filepath.Join(lay(t, []item{{name: "rules.yar", mode: 0o755, body: "rule x {}"}}), "rules.yar")
	p, err := s.Import(rollback.Content, name)
	if err != nil {
		t.Fatal(err)
	}
	path, err := s.Path(p.Digest)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	info, serr := os.Stat(path)
	if err != nil || serr != nil || string(text) != "rule x {}" || filepath.Base(path) != "rules.yar" {
		t.Errorf("%s holds %q, %v", path, text, err)
	}
	if info.Mode() != 0o444 {
		t.Errorf("mode %v: content is never executed", info.Mode())
	}
	if _, err := s.Import(rollback.Engine, name); code(err) != "KO-1727" {
		t.Errorf("a file as an engine: %v", err)
	}
}

func TestRefusedFolders(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		spoil func(dir string) error
		code  string
		says  string
	}{
		"symbolic link":     {func(d string) error { return os.Symlink("/etc/shadow", d+"/x") }, "KO-1722", "symbolic link"},
		"link to a folder":  {func(d string) error { return os.Symlink("..", d+"/x") }, "KO-1722", "symbolic link"},
		"hard link":         {func(d string) error { return os.Link(d+"/acme", d+"/x") }, "KO-1722", "2 names"},
		"pipe":              {func(d string) error { return syscall.Mkfifo(d+"/x", 0o600) }, "KO-1722", "pipe"},
		"set-user-id":       {setuid, "KO-1722", "set-user-id"},
		"socket":            {listen, "KO-1722", "socket"},
		"not UTF-8":         {func(d string) error { return os.WriteFile(d+"/\xff", nil, 0o600) }, "KO-1723", "no UTF-8"},
		"control character": {func(d string) error { return os.WriteFile(d+"/a\nb", nil, 0o600) }, "KO-1723", "U+000A"},
		"backslash":         {func(d string) error { return os.WriteFile(d+`/a\b`, nil, 0o600) }, "KO-1723", `U+005C`},
		"too deep":          {func(d string) error { return os.MkdirAll(d+"/1/2/3/4/5", 0o700) }, "KO-1724", "deep"},
		"too large":         {func(d string) error { return os.Truncate(d+"/acme", 2<<20) }, "KO-1724", "bytes"},
		"too many":          {many, "KO-1724", "files"},
		"no manifest":       {func(d string) error { return os.Remove(d + "/provider.yaml") }, "KO-1727", "provider.yaml"},
		"no program":        {func(d string) error { return os.Remove(d + "/acme") }, "KO-1727", "executable"},
		"nothing":           {os.RemoveAll, "KO-1721", "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := open(t)
			dir := lay(t, engine())
			if err := c.spoil(dir); err != nil {
				t.Fatal(err)
			}
			_, err := s.Import(rollback.Engine, dir)
			if code(err) != c.code || !strings.Contains(fmt.Sprint(err), c.says) {
				t.Errorf("%v, want %s with %q", err, c.code, c.says)
			}
			if n, err := s.Collect(); n != 0 || err != nil {
				t.Errorf("it left %d packages, %v", n, err)
			}
		})
	}
}

func listen(dir string) error {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: dir + "/x", Net: "unix"})
	if err != nil {
		return err
	}
	l.SetUnlinkOnClose(false)
	return l.Close()
}

func setuid(dir string) error { return os.Chmod(dir+"/acme", 0o755|fs.ModeSetuid) }

func many(dir string) error {
	for i := range 60 {
		if err := os.WriteFile(fmt.Sprintf("%s/%d", dir, i), nil, 0o600); err != nil {
			return err
		}
	}
	return nil
}

func TestRefusedRoot(t *testing.T) {
	t.Parallel()
	s := open(t)
	dir := lay(t, engine())
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Import(rollback.Engine, link); code(err) != "KO-1722" {
		t.Errorf("a link for a folder: %v", err)
	}
	if _, err := s.Import(rollback.Content, "/dev/null"); code(err) != "KO-1722" {
		t.Errorf("a device: %v", err)
	}
	if _, err := s.Import(rollback.Content, t.TempDir()); code(err) != "KO-1727" {
		t.Errorf("an empty folder: %v", err)
	}
}

func TestRefusedMount(t *testing.T) {
	testenv.Need(t, testenv.Root, testenv.MountNS)
	s := open(t)
	dir := lay(t, engine())
	t.Setenv("TMPDIR", dir) // where Tmpfs makes its mount point
	testenv.Tmpfs(t, "1m")
	if _, err := s.Import(rollback.Content, dir); code(err) != "KO-1722" {
		t.Errorf("a mount inside: %v", err)
	}
}

func TestRefusedDevice(t *testing.T) {
	testenv.Need(t, testenv.Root)
	s := open(t)
	dir := lay(t, engine())
	if err := syscall.Mknod(dir+"/null", syscall.S_IFCHR|0o666, 1<<8|3); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Import(rollback.Engine, dir); code(err) != "KO-1722" {
		t.Errorf("a device inside: %v", err)
	}
}

func TestRefusedArchives(t *testing.T) {
	t.Parallel()
	with := func(it item) []byte { return pack(t, append(engine(), it)) }
	bomb := make([]byte, 8<<20)
	for name, c := range map[string]struct {
		archive []byte
		code    string
	}{
		"parent":            {with(item{name: "../../etc/cron.d/x", body: "x"}), "KO-1723"},
		"hidden parent":     {with(item{name: "lib/../../x", body: "x"}), "KO-1723"},
		"absolute":          {with(item{name: "/etc/passwd", body: "x"}), "KO-1723"},
		"not UTF-8":         {with(item{name: "a\xffb", body: "x"}), "KO-1723"},
		"long name":         {with(item{name: strings.Repeat("n", 300), body: "x"}), "KO-1723"},
		"symbolic link":     {with(item{name: "x", link: "/etc/shadow", kind: tar.TypeSymlink}), "KO-1722"},
		"hard link":         {with(item{name: "x", link: "acme", kind: tar.TypeLink}), "KO-1722"},
		"character device":  {with(item{name: "x", kind: tar.TypeChar}), "KO-1722"},
		"block device":      {with(item{name: "x", kind: tar.TypeBlock}), "KO-1722"},
		"pipe":              {with(item{name: "x", kind: tar.TypeFifo}), "KO-1722"},
		"set-user-id":       {with(item{name: "x", mode: 0o755 | fs.ModeSetuid}), "KO-1722"},
		"twice":             {with(item{name: "acme", body: "x"}), "KO-1726"},
		"in a file":         {with(item{name: "acme/x", body: "x"}), "KO-1726"},
		"file for a folder": {with(item{name: "lib", body: "x"}), "KO-1726"},
		"too deep":          {with(item{name: "1/2/3/4/5/6", body: "x"}), "KO-1724"},
		"too large":         {with(item{name: "x", body: string(bomb[:2<<20])}), "KO-1724"},
		"bomb":              {compress(t, with(item{name: "x", body: string(bomb)})), "KO-1724"},
		"bomb at the end":   {compress(t, append(with(item{name: "x"}), bomb...)), "KO-1724"},
		"no archive":        {[]byte("just text, more than a header would take" + strings.Repeat(".", 600)), "KO-1726"},
		"empty":             {nil, "KO-1726"},
		"cut off":           {pack(t, engine())[:40_000], "KO-1726"},
		"damaged gzip":      {damage(compress(t, pack(t, engine()))), "KO-1726"},
		"in a folder": {pack(t, []item{
			{name: "acme-1/provider.yaml", body: "x"}, {name: "acme-1/acme", mode: 0o755},
		}), "KO-1727"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := open(t)
			if _, err := s.ImportArchive(rollback.Engine, "acme.tar", bytes.NewReader(c.archive)); code(err) != c.code {
				t.Errorf("%v, want %s", err, c.code)
			}
		})
	}
}

// damage changes the checksum at the end.
func damage(data []byte) []byte {
	data[len(data)-6] ^= 1
	return data
}

func TestTooManyEntriesInAnArchive(t *testing.T) {
	t.Parallel()
	var items []item
	for i := range 60 {
		items = append(items, item{name: strconv.Itoa(i)})
	}
	s := open(t)
	if _, err := s.ImportArchive(rollback.Content, "x", bytes.NewReader(pack(t, items))); code(err) != "KO-1724" {
		t.Errorf("%v", err)
	}
	again := make([]item, 200) // one folder, again and again: costs nothing but time
	for i := range again {
		again[i] = item{name: "d/"}
	}
	if _, err := s.ImportArchive(rollback.Content, "x", bytes.NewReader(pack(t, again))); code(err) != "KO-1724" {
		t.Errorf("%v", err)
	}
}

func TestChangedWhileRead(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		at     string // the act of the store's disk during which it happens
		change func(dir string) error
	}{
		"between two looks": {"mkdir", func(d string) error { return os.WriteFile(d+"/lib/new", nil, 0o600) }},
		"another content":   {"mkdir", func(d string) error { return os.WriteFile(d+"/lib/nothing", []byte("x"), 0o600) }},
		"grows":             {"write", func(d string) error { return grow(d + "/lib/rules.db") }},
		"shrinks":           {"write", func(d string) error { return os.Truncate(d+"/lib/rules.db", 10) }},
		"goes":              {"write", func(d string) error { return os.RemoveAll(d + "/lib") }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			disk := simdisk.New()
			s, err := store.Open(store.Config{Dir: "/store", Disk: disk})
			if err != nil {
				t.Fatal(err)
			}
			dir := lay(t, engine())
			done := false
			disk.Before = func(act, name string) error {
				if done || act != c.at || act == "write" && !strings.HasSuffix(name, "/rules.db") {
					return nil
				}
				done = true
				return c.change(dir)
			}
			if _, err := s.Import(rollback.Engine, dir); code(err) != "KO-1725" || !done {
				t.Errorf("%v (changed: %v), want KO-1725", err, done)
			}
		})
	}
}

func grow(name string) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString("more")
	return errors.Join(err, f.Close())
}

func TestFullDisk(t *testing.T) {
	t.Parallel()
	disk := simdisk.New()
	s, err := store.Open(store.Config{Dir: "/store", Disk: disk})
	if err != nil {
		t.Fatal(err)
	}
	for _, act := range []string{"mkdir", "create", "write", "chmod", "sync", "rename", "syncdir"} {
		fails := true
		disk.Before = func(a, _ string) error {
			if fails && a == act {
				return syscall.ENOSPC
			}
			return nil
		}
		archive := pack(t, append(engine(), item{name: act}))
		if _, err := s.ImportArchive(rollback.Engine, "x", bytes.NewReader(archive)); code(err) != "KO-1708" {
			t.Errorf("%s fails: %v", act, err)
		}
		fails = false
		p, err := s.ImportArchive(rollback.Engine, "x", bytes.NewReader(archive))
		if err != nil {
			t.Errorf("after %s failed: %v", act, err)
		}
		if err := s.Verify(p.Digest); err != nil {
			t.Error(err)
		}
	}
}
