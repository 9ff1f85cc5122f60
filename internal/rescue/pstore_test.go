package rescue

import (
	"fmt"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/keepout-security/keepout/internal/boot"
	"github.com/keepout-security/keepout/internal/rescue/plan"
)

const cause = "Kernel panic - not syncing: sysrq triggered crash"

func at(minute int) time.Time {
	return time.Unix(1_800_000_000, 0).Add(time.Duration(minute) * time.Minute)
}

// dump is one panic in parts, as efi-pstore leaves it: part 1 is the end of the log.
func dump(files fstest.MapFS, name, reason string, when time.Time, parts ...string) {
	for i, text := range parts {
		number := len(parts) - i
		files[fmt.Sprintf("dmesg-efi_pstore-%s%02d", name, number)] = &fstest.MapFile{
			Data: fmt.Appendf(nil, "%s#1 Part%d\n%s", reason, number, text), ModTime: when,
		}
	}
}

func TestReadPanicLog(t *testing.T) {
	t.Parallel()
	files := fstest.MapFS{}
	dump(files, "a", "Panic", at(0), "<6>[    1.0] an older one\n")
	dump(files, "b", "Panic", at(10), "<6>[    1.0] first\n", "<6>[    2.0] second\n", "<0>[    3.0] "+cause+"\n")
	dump(files, "c", "Oops", at(20), "<1>[    1.0] BUG: something else\n")
	log := ReadPanicLog(files)
	if log.Cause != cause || log.Count != 3 || len(log.Files) != 5 {
		t.Errorf("cause %q, %d dumps, %d files", log.Cause, log.Count, len(log.Files))
	}
	if i, j := strings.Index(log.Text, "first"), strings.Index(log.Text, "second"); i < 0 || j < i {
		t.Errorf("the parts are not in order: %q", log.Text)
	}
	if strings.Contains(log.Text, "older") {
		t.Error("two panics are mixed")
	}
}

// TestPanicLogsOfAnySize: firmware full of old records, and a record of 10 MB, are read within the bounds.
func TestPanicLogsOfAnySize(t *testing.T) {
	t.Parallel()
	files := fstest.MapFS{"dmesg-huge": {Data: []byte("Panic#1 Part1\n" + strings.Repeat("x\n", 5<<20))}}
	for i := range 2 * maxRecords {
		dump(files, fmt.Sprintf("%04d", i), "Panic", at(10*i), "old\n")
	}
	const newest = 100 * maxRecords // the last by its name, too
	dump(files, "z", "Panic", at(newest), "<0>[    3.0] "+cause+"\n")
	log := ReadPanicLog(files)
	if len(log.Text) > maxPanicText || len(log.Files) > maxRecords || log.Cause != cause {
		t.Errorf("%d bytes, %d records, cause %q", len(log.Text), len(log.Files), log.Cause)
	}
	if log := ReadPanicLog(fstest.MapFS{}); log.Text != "" || log.Cause != "" || log.Count != 0 {
		t.Errorf("nothing is %+v", log)
	}
}

func FuzzReadPanicLog(f *testing.F) {
	f.Add([]byte("Panic#1 Part1\n<0>[ 1.0] "+cause), []byte("Oops#2 Part9\n"))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		log := ReadPanicLog(fstest.MapFS{"a": {Data: a}, "b": {Data: b}})
		if len(log.Text) > maxPanicText || len(log.Files) != 2 {
			t.Fatalf("%d bytes, %q", len(log.Text), log.Files)
		}
	})
}

// TestDetailsShowTheEndOfAPanic: what stands at the end says why, and must be what is kept of a long log.
func TestDetailsShowTheEndOfAPanic(t *testing.T) {
	t.Parallel()
	k := &known{panics: PanicLog{Text: strings.Repeat("noise\n", 5000) + cause + "\n", Count: 1}, state: boot.New()}
	record := account(k, &plan.State{Phase: plan.Menu}, at(0)).Cleaned()
	if last := record.Details[len(record.Details)-1]; last != cause {
		t.Errorf("the last line of the details is %q", last)
	}
}

func TestKeyFrom(t *testing.T) {
	t.Parallel()
	for sequence, want := range map[string]plan.Key{
		"\x1bOQ": plan.Details, "\x1b[12~": plan.Details, "\x1b[[B": plan.Details, "\x1b[19~": plan.Safe, "8": plan.Safe,
		"\x1b[21~": plan.Off, "0": plan.Off, "\r": plan.Again, "x": "", "\x1b[A": "",
	} {
		if got := keyFrom(sequence); got != want {
			t.Errorf("%q: %q, want %q", sequence, got, want)
		}
	}
}
