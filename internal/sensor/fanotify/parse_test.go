package fanotify

import (
	"encoding/binary"
	"errors"
	"io"
	"os"
	"reflect"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// packet builds what the kernel would send: metadata, then records, with the length filled in.
type packet struct {
	mask    uint64
	file    int32
	pid     int32
	records []byte

	length  int // when not 0, in place of the true one
	header  int // as length
	version byte
}

func (p packet) bytes() []byte {
	b := make([]byte, metadataLen, metadataLen+len(p.records))
	b = append(b, p.records...)
	binary.NativeEndian.PutUint32(b, uint32(len(b)))
	b[4] = unix.FANOTIFY_METADATA_VERSION
	binary.NativeEndian.PutUint16(b[6:], metadataLen)
	binary.NativeEndian.PutUint64(b[8:], p.mask)
	binary.NativeEndian.PutUint32(b[16:], uint32(p.file))
	binary.NativeEndian.PutUint32(b[20:], uint32(p.pid))
	if p.length != 0 {
		binary.NativeEndian.PutUint32(b, uint32(p.length))
	}
	if p.header != 0 {
		binary.NativeEndian.PutUint16(b[6:], uint16(p.header))
	}
	if p.version != 0 {
		b[4] = p.version
	}
	return b
}

// record builds one information record around a body.
func record(kind byte, body []byte) []byte {
	b := append([]byte{kind, 0, 0, 0}, body...)
	binary.NativeEndian.PutUint16(b[2:], uint16(len(b)))
	return b
}

// fid is the body of a file id record; claimed is the handle's length as written, and name may hold padding.
func fid(h Handle, claimed int, name string) []byte {
	var b [16]byte
	binary.NativeEndian.PutUint32(b[:], uint32(h.FSID[0]))
	binary.NativeEndian.PutUint32(b[4:], uint32(h.FSID[1]))
	binary.NativeEndian.PutUint32(b[8:], uint32(claimed))
	binary.NativeEndian.PutUint32(b[12:], uint32(h.Type))
	return append(append(b[:], h.Bytes...), name...)
}

func pidfd(fd int32) []byte {
	return record(unix.FAN_EVENT_INFO_TYPE_PIDFD, binary.NativeEndian.AppendUint32(nil, uint32(fd)))
}

var (
	folder = Handle{FSID: [2]int32{7, -8}, Type: 0x81, Bytes: "folder-1"}
	other  = Handle{FSID: [2]int32{7, -8}, Type: 0x81, Bytes: "folder-2"}
	object = Handle{FSID: [2]int32{7, -8}, Type: 1, Bytes: "object"}
)

func named(kind byte, h Handle, name string) []byte { return record(kind, fid(h, len(h.Bytes), name)) }

func join(parts ...[]byte) (b []byte) {
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

// samples are events as the kernel sends them, and what they mean.
var samples = []struct {
	name   string
	packet packet
	want   Event
}{
	{"open", packet{mask: OpenPerm, file: 9, pid: 42, records: pidfd(10)}, Event{
		Mask: OpenPerm, File: 9, PID: 42, PIDFD: 10,
	}},
	{"open, actor reaped", packet{mask: OpenPerm, file: 9, pid: 42, records: pidfd(unix.FAN_NOPIDFD)}, Event{
		Mask: OpenPerm, File: 9, PID: 42, PIDFD: NoFD,
	}},
	{"open, no pidfd to be had", packet{mask: OpenPerm, file: 9, pid: 42, records: pidfd(unix.FAN_EPIDFD)}, Event{
		Mask: OpenPerm, File: 9, PID: 42, PIDFD: NoFD,
	}},
	{"no record", packet{mask: OpenExecPerm, file: 0, pid: 0}, Event{Mask: OpenExecPerm, File: 0, PIDFD: NoFD}},
	{"no file to be had", packet{mask: OpenPerm, file: -int32(unix.EMFILE), pid: 42}, Event{
		Mask: OpenPerm, File: NoFD, PID: 42, PIDFD: NoFD,
	}},
	{"overflow", packet{mask: Overflow, file: unix.FAN_NOFD, pid: 0}, Event{Mask: Overflow, File: NoFD, PIDFD: NoFD}},
	{"create", packet{mask: Create, file: unix.FAN_NOFD, pid: 42, records: join(
		named(unix.FAN_EVENT_INFO_TYPE_DFID_NAME, folder, "new file\x00\x00\x00\x00"),
		named(unix.FAN_EVENT_INFO_TYPE_FID, object, ""), pidfd(5),
	)}, Event{
		Mask: Create, File: NoFD, PID: 42, PIDFD: 5,
		Dir: Entry{Dir: folder, Name: "new file"}, Target: object,
	}},
	{"rename", packet{mask: Rename, file: unix.FAN_NOFD, pid: 42, records: join(
		named(unix.FAN_EVENT_INFO_TYPE_OLD_DFID_NAME, folder, "old\x00"),
		named(unix.FAN_EVENT_INFO_TYPE_NEW_DFID_NAME, other, "new\x00\x00"),
		named(unix.FAN_EVENT_INFO_TYPE_FID, object, ""), pidfd(5),
	)}, Event{
		Mask: Rename, File: NoFD, PID: 42, PIDFD: 5,
		Dir: Entry{Dir: folder, Name: "old"}, NewDir: Entry{Dir: other, Name: "new"}, HasMove: true,
		Target: object,
	}},
	{"folder without a name", packet{mask: Delete, file: unix.FAN_NOFD, records: named(
		unix.FAN_EVENT_INFO_TYPE_DFID, folder, "")}, Event{
		Mask: Delete, File: NoFD, PIDFD: NoFD, Dir: Entry{Dir: folder},
	}},
	{"empty handle", packet{mask: CloseWrite, file: unix.FAN_NOFD, records: record(
		unix.FAN_EVENT_INFO_TYPE_FID, fid(Handle{Type: 3}, 0, ""))}, Event{
		Mask: CloseWrite, File: NoFD, PIDFD: NoFD, Target: Handle{Type: 3},
	}},
	{"records of a newer kernel", packet{mask: OpenPerm, file: 9, pid: 1, records: join(
		record(200, []byte("anything")), record(201, nil), pidfd(10), record(unix.FAN_EVENT_INFO_TYPE_ERROR, nil),
	)}, Event{Mask: OpenPerm, File: 9, PID: 1, PIDFD: 10}},
	{"longer metadata of a newer kernel", packet{
		mask: OpenPerm, file: 9, pid: 1, header: metadataLen + 8, records: join(make([]byte, 8), pidfd(10)),
	}, Event{Mask: OpenPerm, File: 9, PID: 1, PIDFD: 10}},
}

func TestParse(t *testing.T) {
	t.Parallel()
	for _, c := range samples {
		ev, rest, err := Parse(append(c.packet.bytes(), "next"...))
		if err != nil || string(rest) != "next" {
			t.Errorf("%s: rest %q, %v", c.name, rest, err)
		}
		if !reflect.DeepEqual(ev, c.want) {
			t.Errorf("%s:\ngot  %+v\nwant %+v", c.name, ev, c.want)
		}
	}
}

// TestParseRefuses: what is malformed is an error that still names the descriptors to close.
func TestParseRefuses(t *testing.T) {
	t.Parallel()
	whole := packet{mask: OpenPerm, file: 9, pid: 42, records: pidfd(10)}
	with := func(change func(p *packet)) []byte {
		p := whole
		change(&p)
		return p.bytes()
	}
	records := func(b ...[]byte) []byte { return with(func(p *packet) { p.records = join(b...) }) }
	for _, c := range []struct {
		name        string
		in          []byte
		file, pidfd int
		why         string
	}{
		{"empty", nil, NoFD, NoFD, "0 bytes left, metadata has 24"},
		{"cut in the metadata", whole.bytes()[:23], NoFD, NoFD, "23 bytes left, metadata has 24"},
		{"cut in a record", whole.bytes()[:30], 9, NoFD, "length 32, header 24, have 30"},
		{"another version", with(func(p *packet) { p.version = 4 }), 9, NoFD, "version 4, want 3"},
		{"length 4 GiB", with(func(p *packet) { p.length = -1 }), 9, NoFD, "length 4294967295, header 24, have 32"},
		{"length below the header", with(func(p *packet) { p.length = 23 }), 9, NoFD, "length 23, header 24, have 32"},
		{"header beyond the event", with(func(p *packet) { p.header = 33 }), 9, NoFD, "length 32, header 33, have 32"},
		{"header below the metadata", with(func(p *packet) { p.header = 8 }), 9, NoFD, "length 32, header 8, have 32"},
		{"half a record header", records([]byte{1, 0, 9}), 9, NoFD, "3 bytes left, a record header has 4"},
		{"record of no length", records([]byte{200, 0, 0, 0}), 9, NoFD, "record of 0 bytes, have 4"},
		{"record beyond the event", records(pidfd(10), []byte{200, 0, 9, 0}), 9, 10, "record of 9 bytes, have 4"},
		{"short pidfd", records(record(unix.FAN_EVENT_INFO_TYPE_PIDFD, []byte{1, 2})), 9, NoFD, "pidfd record of 2 bytes"},
		{
			"short file id", records(pidfd(10), record(unix.FAN_EVENT_INFO_TYPE_FID, make([]byte, 15))), 9, 10,
			"file id record of 15 bytes",
		},
		{
			"handle beyond its record", records(record(unix.FAN_EVENT_INFO_TYPE_DFID_NAME, fid(folder, 9, ""))), 9, NoFD,
			"handle of 9 bytes, have 8",
		},
		{
			"handle of 4 GiB", records(record(unix.FAN_EVENT_INFO_TYPE_NEW_DFID_NAME, fid(folder, -1, ""))), 9, NoFD,
			"handle of 4294967295 bytes, have 8",
		},
	} {
		ev, rest, err := Parse(c.in)
		if !errors.Is(err, ErrFormat) || !strings.HasSuffix(err.Error(), c.why) {
			t.Errorf("%s: %v, want %q", c.name, err, c.why)
		}
		if ev.File != c.file || ev.PIDFD != c.pidfd || len(rest) != 0 {
			t.Errorf("%s: file %d, pidfd %d, %d bytes left; want %d and %d",
				c.name, ev.File, ev.PIDFD, len(rest), c.file, c.pidfd)
		}
	}
}

// TestParseGoesOn: one broken record costs its own event only.
func TestParseGoesOn(t *testing.T) {
	t.Parallel()
	broken := packet{mask: OpenPerm, file: 3, records: []byte{200, 0, 0, 0}}
	good := packet{mask: OpenPerm, file: 4, records: pidfd(5)}
	_, rest, err := Parse(join(broken.bytes(), good.bytes()))
	if err == nil {
		t.Fatal("the broken record is accepted")
	}
	ev, rest, err := Parse(rest)
	if err != nil || ev.File != 4 || ev.PIDFD != 5 || len(rest) != 0 {
		t.Errorf("after it: %+v, %d bytes left, %v", ev, len(rest), err)
	}
}

// TestParseStream: any number of events in one buffer come out whole and in order.
func TestParseStream(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var buf []byte
		var want []Event
		for range rapid.IntRange(0, 20).Draw(t, "events") {
			c := samples[rapid.IntRange(0, len(samples)-1).Draw(t, "sample")]
			buf, want = append(buf, c.packet.bytes()...), append(want, c.want)
		}
		var got []Event
		for len(buf) > 0 {
			ev, rest, err := Parse(buf)
			if err != nil || len(rest) >= len(buf) {
				t.Fatalf("%d bytes left of %d, %v", len(rest), len(buf), err)
			}
			buf, got = rest, append(got, ev)
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("got  %+v\nwant %+v", got, want)
		}
	})
}

// TestSizes compares the sizes here with the kernel's own structures.
func TestSizes(t *testing.T) {
	t.Parallel()
	if n := unsafe.Sizeof(unix.FanotifyEventMetadata{}); n != metadataLen {
		t.Errorf("struct fanotify_event_metadata has %d bytes, not %d", n, metadataLen)
	}
	if n := unsafe.Offsetof(unix.FanotifyEventMetadata{}.Fd); n != 16 {
		t.Errorf("fd stands at %d", n)
	}
}

// FuzzParse: whatever bytes come, parsing ends, gets shorter, and never names a descriptor below NoFD.
func FuzzParse(f *testing.F) {
	for _, c := range samples {
		f.Add(c.packet.bytes())
		f.Add(c.packet.bytes()[:metadataLen])
	}
	f.Add(packet{file: 1, records: record(unix.FAN_EVENT_INFO_TYPE_DFID_NAME, fid(folder, -1, "x"))}.bytes())
	f.Add(packet{file: 1, length: 1 << 20}.bytes())
	f.Add(join(samples[0].packet.bytes(), samples[7].packet.bytes()))
	f.Fuzz(func(t *testing.T, b []byte) {
		for rest := b; len(rest) > 0; {
			ev, next, err := Parse(rest)
			if ev.File < NoFD || ev.PIDFD < NoFD {
				t.Fatalf("file %d, pidfd %d", ev.File, ev.PIDFD)
			}
			if len(next) >= len(rest) {
				t.Fatalf("%d bytes left of %d: no end", len(next), len(rest))
			}
			if err != nil && !errors.Is(err, ErrFormat) {
				t.Fatalf("another error: %v", err)
			}
			for _, h := range []Handle{ev.Target, ev.Dir.Dir, ev.NewDir.Dir} {
				if len(h.Bytes) > len(b) {
					t.Fatalf("a handle of %d bytes out of %d", len(h.Bytes), len(b))
				}
			}
			if strings.ContainsRune(ev.Dir.Name+ev.NewDir.Name, 0) {
				t.Fatalf("names %q, %q", ev.Dir.Name, ev.NewDir.Name)
			}
			rest = next
		}
	})
}

// TestStop: a group that is stopped ends every reader and stays usable for answers. The group is made of a pipe
// and an eventfd, so no privilege is needed.
func TestStop(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	fd, err := unix.Dup(int(r.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	g := &Group{fd: fd, wake: wake}
	if _, err := w.WriteString("event"); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 64)
	if n, err := g.ReadBlocking(buf); err != nil || string(buf[:n]) != "event" {
		t.Fatalf("read %q, %v", buf[:n], err)
	}
	ended := make(chan error, 3)
	for range 3 {
		go func() {
			_, err := g.ReadBlocking(make([]byte, 64))
			ended <- err
		}()
	}
	g.Stop()
	for range 3 {
		if err := <-ended; !errors.Is(err, io.EOF) {
			t.Errorf("a reader ended with %v", err)
		}
	}
	if err := g.Close(); err != nil {
		t.Error(err)
	}
}
