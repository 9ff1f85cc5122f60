package journal

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// forged is a journal of three files of four lines each, as lines.
func forged(t *testing.T) (dir string, files [][][]byte) {
	t.Helper()
	dir = t.TempDir()
	j := start(t, dir, Limits{FileBytes: 5000}, osDisk{})
	for id := range uint64(12) {
		j.Append(plain(id + 1))
	}
	stop(t, j)
	segs, err := segments(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range segs {
		data, err := os.ReadFile(s.path)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, bytes.Split(bytes.TrimSuffix(data, []byte("\n")), []byte("\n")))
	}
	if len(files) != 3 || len(files[0]) != 4 || len(files[1]) != 4 {
		t.Fatalf("the journal has not three files of four lines: %d, %d", len(files), len(files[0]))
	}
	return dir, files
}

func TestVerifyNamesTampering(t *testing.T) {
	names := []string{fileName(1), fileName(5), fileName(9)}
	for _, tt := range []struct {
		name   string
		tamper func(files [][][]byte) [][][]byte
		want   []string // prefixes of the breaks
	}{
		{"nothing", func(f [][][]byte) [][][]byte { return f }, nil},
		{"edit", func(f [][][]byte) [][][]byte {
			f[1][1] = bytes.Replace(f[1][1], []byte("ALLOWED"), []byte("DENIED!"), 1)
			return f
		}, []string{names[1] + ":3: number 7 is not linked"}},
		{"edit before a rotation", func(f [][][]byte) [][][]byte {
			f[0][3] = bytes.Replace(f[0][3], []byte("eicar"), []byte("clean"), 1)
			return f
		}, []string{names[1] + ":1: number 5 is not linked"}},
		{"edit of white space", func(f [][][]byte) [][][]byte {
			f[1][1] = append(f[1][1], ' ')
			return f
		}, []string{names[1] + ":3: number 7 is not linked"}},
		{"delete", func(f [][][]byte) [][][]byte {
			f[1] = slices.Delete(f[1], 1, 2)
			return f
		}, []string{names[1] + ":2: number 7 follows number 5"}},
		{"delete and renumber", func(f [][][]byte) [][][]byte {
			f[1] = slices.Delete(f[1], 1, 2)
			for _, key := range []string{`"seq":%d,`, `"sequence":%d}`} {
				old, forged := fmt.Appendf(nil, key, 7), fmt.Appendf(nil, key, 6)
				f[1][1] = bytes.Replace(f[1][1], old, forged, 1)
			}
			return f
		}, []string{names[1] + ":2: number 6 is not linked", names[1] + ":3: number 8 follows number 6"}},
		{"swap", func(f [][][]byte) [][][]byte {
			f[0][1], f[0][2] = f[0][2], f[0][1]
			return f
		}, []string{
			names[0] + ":2: number 3 follows number 1", names[0] + ":3: number 2 follows number 3",
			names[0] + ":4: number 4 follows number 2",
		}},
		{"duplicate", func(f [][][]byte) [][][]byte {
			f[0] = slices.Insert(f[0], 1, f[0][0])
			return f
		}, []string{names[0] + ":2: number 1 follows number 1"}},
		{"garbage", func(f [][][]byte) [][][]byte {
			f[0][1] = []byte("rm -rf")
			return f
		}, []string{names[0] + ":2: decode journal line", names[0] + ":3: number 3 is not linked"}},
		{
			"a whole file", func(f [][][]byte) [][][]byte { return [][][]byte{f[0], nil, f[2]} },
			[]string{names[2] + ":1: number 9 follows number 4"},
		},
		{"the beginning of the oldest file", func(f [][][]byte) [][][]byte {
			f[0] = f[0][2:]
			return f
		}, []string{names[0] + ":1: the file's name promises line 1, it begins with 3"}},
		{"the end of a file in the middle", func(f [][][]byte) [][][]byte {
			f[1] = f[1][:3]
			return f
		}, []string{names[2] + ":1: number 9 follows number 7"}},
		{"a forged beginning", func(f [][][]byte) [][][]byte {
			f[0][0] = bytes.Replace(f[0][0], []byte(noHash), []byte(strings.Repeat("1", 64)), 1)
			return f
		}, []string{names[0] + ":1: the first line ever is linked", names[0] + ":2: number 2 is not linked"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir, files := forged(t)
			for i, lines := range tt.tamper(files) {
				path := filepath.Join(dir, names[i])
				if err := os.Remove(path); err != nil {
					t.Fatal(err)
				}
				if lines == nil {
					continue
				}
				text := append(bytes.Join(lines, []byte("\n")), '\n')
				if err := os.WriteFile(path, text, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			wantBreaks(t, dir, tt.want)
		})
	}
}

func wantBreaks(t *testing.T, dir string, want []string) {
	t.Helper()
	r, err := Verify(dir)
	if err != nil {
		t.Fatal(err)
	}
	ok := len(r.Breaks) == len(want) && r.Intact() == (len(want) == 0)
	for i := range min(len(r.Breaks), len(want)) {
		ok = ok && strings.HasPrefix(r.Breaks[i].String(), want[i])
	}
	if !ok {
		t.Errorf("breaks are %v, want %v", r.Breaks, want)
	}
}

func TestVerifyNamesATruncatedFileInTheMiddle(t *testing.T) {
	dir, _ := forged(t)
	path := filepath.Join(dir, fileName(5))
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, info.Size()-10); err != nil {
		t.Fatal(err)
	}
	wantBreaks(t, dir, []string{
		fileName(5) + ":4: the line is incomplete", fileName(9) + ":1: number 9 follows number 7",
	})
}

// A cut at the end leaves a chain that holds; the head that was noted before tells.
func TestHeadTellsACutEnd(t *testing.T) {
	dir, _ := forged(t)
	before := intact(t, dir).Head
	path := filepath.Join(dir, fileName(9))
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	cut := data[:bytes.LastIndexByte(data[:len(data)-1], '\n')+1]
	if err := os.WriteFile(path, cut, 0o600); err != nil {
		t.Fatal(err)
	}
	if after := intact(t, dir).Head; after == before || after.Seq != before.Seq-1 {
		t.Errorf("head is %v, was %v before the cut", after, before)
	}
}

func TestVerifyBoundsItsReport(t *testing.T) {
	dir := t.TempDir()
	text := strings.Repeat("garbage\n", maxBreaks+1)
	if err := os.WriteFile(filepath.Join(dir, fileName(1)), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := Verify(dir)
	if err != nil || len(r.Breaks) != maxBreaks || !r.More || r.Lines != maxBreaks+1 {
		t.Errorf("%d breaks, more %t, %d lines, %v", len(r.Breaks), r.More, r.Lines, err)
	}
}

func TestVerifyOfNothing(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"keepout-1.jsonl", "keepout-x.jsonl", "notes.txt", fileName(1) + ".gz"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("not ours\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if r := intact(t, dir); r.Files != 0 || r.Lines != 0 || r.Head != (Head{Hash: noHash}) {
		t.Errorf("report of a folder without a journal is %+v", r)
	}
}

func TestReadSince(t *testing.T) {
	dir := t.TempDir()
	j := start(t, dir, Limits{FileBytes: 5000, Files: 100}, osDisk{})
	for i := range 60 {
		rec := plain(uint64(i + 1))
		rec.Event.Time = testTime.Add(time.Duration(i) * 10 * time.Second)
		j.Append(rec)
	}
	stop(t, j)
	for _, first := range []int{0, 1, 30, 59, 60} {
		since := testTime.Add(time.Duration(first) * 10 * time.Second)
		var got []uint64
		err := Read(dir, since, func(e *Entry) bool {
			got = append(got, e.Record.Event.ID)
			return true
		})
		if err != nil || len(got) != 60-first || len(got) > 0 && got[0] != uint64(first+1) {
			t.Errorf("since %d: %d events, first %v, %v", first, len(got), got[:min(1, len(got))], err)
		}
	}
	files, err := segments(dir)
	if err != nil {
		t.Fatal(err)
	}
	if n := firstRelevant(files, testTime.Add(10*time.Minute)); n < len(files)/2 {
		t.Errorf("a late start skips only %d of %d files", n, len(files))
	}
	count := 0
	if err := Read(dir, time.Time{}, func(*Entry) bool { count++; return count < 7 }); err != nil || count != 7 {
		t.Errorf("Read went on to %d entries after being told to stop at 7: %v", count, err)
	}
}

func TestReadPassesOverDamage(t *testing.T) {
	dir, files := forged(t)
	files[1][2] = []byte("garbage")
	files[1][3] = bytes.Repeat([]byte("x"), MaxLine+7)
	text := append(bytes.Join(files[1], []byte("\n")), '\n')
	if err := os.WriteFile(filepath.Join(dir, fileName(5)), text, 0o600); err != nil {
		t.Fatal(err)
	}
	count := 0
	err := Read(dir, time.Time{}, func(*Entry) bool { count++; return true })
	want := "read journal: 2 damaged journal lines, the first is " + fileName(5) + ":3: "
	if count != 10 || err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("%d entries, error %v", count, err)
	}
}

// A slow verdict may stand at the end of a file whose successor begins with an older event.
func TestReadSinceAllowsDisorder(t *testing.T) {
	dir := t.TempDir()
	j := start(t, dir, Limits{FileBytes: 5000}, osDisk{})
	for i := range 8 {
		rec := plain(uint64(i + 1))
		rec.Event.Time = testTime
		if i == 3 {
			rec.Event.Time = testTime.Add(disorder / 2)
		}
		j.Append(rec)
	}
	stop(t, j)
	var got []uint64
	err := Read(dir, testTime.Add(disorder/4), func(e *Entry) bool {
		got = append(got, e.Record.Event.ID)
		return true
	})
	if err != nil || !slices.Equal(got, []uint64{4}) {
		t.Errorf("events %v, %v, want the fourth alone", got, err)
	}
}
