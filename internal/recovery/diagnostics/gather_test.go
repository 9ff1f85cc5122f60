package diagnostics

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

func hostFiles() fstest.MapFS {
	file := func(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }
	return fstest.MapFS{
		"etc/machine-id":                file("0123456789abcdef0123456789abcdef\n"),
		"etc/hostname":                  file("pc-of-bob.example.org\n"),
		"proc/sys/kernel/hostname":      file("pc-of-bob\n"),
		"etc/os-release":                file("NAME=x\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n"),
		"proc/sys/kernel/osrelease":     file("6.1.0-56-amd64\n"),
		"proc/sys/kernel/tainted":       file("12288\n"),
		"sys/class/dmi/id/board_serial": file("SN-778899\n"),
		"etc/passwd": file("root:x:0:0:root:/root:/bin/sh\nbobby:x:1000:1000:Robert Smith,,,:/home/rsmith:/bin/sh\n" +
			"nobody:x:65534:65534::/nonexistent:/bin/false\nbroken\n"),
		"proc/modules": file("acme 16384 0 - Live 0x0000000000000000 (OE)\nfat 86016 1 vfat, Live 0x0000000000000000\n" +
			"nvidia_x 1 0 - Live 0x0 (PO)\n"),
		"lib/modules/6.1.0-56-amd64/modules.dep": file("updates/dkms/acme.ko.xz:\nextra/nvidia-x.ko: a b\n"),
		"home/bobby/diary.txt":                   file("dear diary"),
		"var/log/journal/x":                      file("everything"),
	}
}

func TestGather(t *testing.T) {
	t.Parallel()
	in := Gather(hostFiles(), func(path string) string {
		if strings.HasSuffix(path, "nvidia-x.ko") {
			return "nvidia-kernel"
		}
		return ""
	})
	if in.Versions.Kernel != "6.1.0-56-amd64" || in.Versions.System != "Debian GNU/Linux 12 (bookworm)" {
		t.Errorf("versions %+v", in.Versions)
	}
	want := []Module{{"acme", "OE", "dkms"}, {"nvidia_x", "PO", "nvidia-kernel"}}
	if !reflect.DeepEqual(in.Modules, want) {
		t.Errorf("modules %+v, want %+v", in.Modules, want)
	}
	if !slices.Equal(in.Taint, []string{"O module from outside the kernel", "E unsigned module"}) {
		t.Errorf("taint %q", in.Taint)
	}
	for _, name := range []string{"bobby", "rsmith", "Robert Smith", "Smith"} {
		if !slices.Contains(in.Known.Users, name) {
			t.Errorf("%q is not among the known users %q", name, in.Known.Users)
		}
	}
	if slices.Contains(in.Known.Users, "root") || slices.Contains(in.Known.Users, "nobody") {
		t.Errorf("users of the system are taken for people: %q", in.Known.Users)
	}
	in.Nonce = make([]byte, 16)
	in.PanicLog = []byte("pc-of-bob: bobby ran x, disk SN-778899\n")
	b, encoded := make1(t, &in, Full)
	if b.Panic[0] != "[host]: [user] ran x, disk [machine-id]" {
		t.Errorf("panic %q", b.Panic)
	}
	for _, text := range []string{"diary", "everything", "pc-of-bob", "bobby", "0123456789abcdef0123"} {
		if strings.Contains(string(encoded), text) {
			t.Errorf("the bundle holds %q", text)
		}
	}
}

// TestGatherNothing: on a machine without anything, a bundle can be made all the same.
func TestGatherNothing(t *testing.T) {
	t.Parallel()
	in := Gather(fstest.MapFS{}, nil)
	in.Nonce = make([]byte, 16)
	if b, _ := make1(t, &in, Full); b.Signature.Title != "no failure is known" {
		t.Errorf("title %q", b.Signature.Title)
	}
}

func TestPstore(t *testing.T) {
	t.Parallel()
	file := func(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }
	records := fstest.MapFS{
		"p/dmesg-efi-178400000001001":       file("Oops#1 Part1\nan oops\n"),
		"p/dmesg-efi-178400000001002":       file("Panic#2 Part1\nthe end\n"),
		"p/dmesg-efi-178400000002002":       file("Panic#2 Part2\nthe beginning\n"),
		"p/dmesg-efi-178300000001001":       file("Panic#1 Part1\nan older one\n"),
		"p/dmesg-efi-178500000001009.enc.z": file("\x01\x02"),
		"p/console-ramoops-0":               file("console"),
	}
	if got := string(Pstore(records, "p")); got != "the beginning\nthe end\n" {
		t.Errorf("got %q", got)
	}
	if got := Pstore(fstest.MapFS{"p/dmesg-erst-1": file("no head\n")}, "p"); string(got) != "no head\n" {
		t.Errorf("a record without a head: %q", got)
	}
	for i := range maxRecords { // of years ago
		records[fmt.Sprintf("p/dmesg-efi-16%013d", i)] = file("Panic#1 Part1\nan older one\n")
	}
	if got := string(Pstore(records, "p")); got != "the beginning\nthe end\n" {
		t.Errorf("of more records than are read: %q", got)
	}
	if got := Pstore(records, "nowhere"); got != nil {
		t.Errorf("without a folder: %q", got)
	}
	moved := fstest.MapFS{
		"var/lib/systemd/pstore/1783/dmesg.txt": file("older\n"), "var/lib/systemd/pstore/1784/dmesg.txt": file("newer\n"),
	}
	if got := Gather(moved, nil).PanicLog; string(got) != "newer\n" {
		t.Errorf("what systemd-pstore moved: %q", got)
	}
}

func TestParseUnits(t *testing.T) {
	t.Parallel()
	units, err := ParseUnits([]byte(`[{"unit":"a.service","load":"loaded","active":"failed","sub":"failed"}]`))
	if err != nil || len(units) != 1 || units[0] != (Unit{"a.service", "failed/failed"}) {
		t.Errorf("%+v, %v", units, err)
	}
	if _, err := ParseUnits([]byte("no json")); err == nil {
		t.Error("no JSON was read")
	}
}

func TestParseTimings(t *testing.T) {
	t.Parallel()
	got := ParseTimings([]byte("FirmwareTimestampMonotonic=9000000\nLoaderTimestampMonotonic=2000000\n" +
		"InitRDTimestampMonotonic=1500000\nUserspaceTimestampMonotonic=4000000\nFinishTimestampMonotonic=14000000\nx\n"))
	want := []Timing{{"firmware", 7000}, {"boot loader", 2000}, {"kernel", 1500}, {"initrd", 2500}, {"user space", 10000}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v", got)
	}
}

func FuzzParseUnits(f *testing.F) {
	f.Add([]byte(`[{"unit":"a"}]`), "firmware=1")
	f.Fuzz(func(_ *testing.T, units []byte, timings string) {
		_, _ = ParseUnits(units)
		ParseTimings([]byte(timings))
		people([]byte(timings))
		moduleFiles([]byte(timings))
		Gather(fstest.MapFS{
			"proc/modules": {Data: []byte(timings)}, "proc/sys/kernel/osrelease": {Data: units},
			"sys/fs/pstore/dmesg-a": {Data: units}, "proc/sys/kernel/tainted": {Data: []byte(timings)},
		}, nil)
	})
}
