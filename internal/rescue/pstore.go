package rescue

import (
	"bytes"
	"io"
	"io/fs"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Bounds of what is read of panic logs. Firmware may hold hundreds of records of years; the newest are read.
const (
	maxRecords   = 512
	maxRecord    = 64 << 10 // bytes of one; what is longer loses its beginning
	maxPanicText = 64 << 10 // bytes of the text that is kept: its end, where the panic is
	sameDump     = 5 * time.Second
)

// PanicLog is what a kernel left behind when it stopped.
type PanicLog struct {
	Text  string    // of the newest panic, oldest line first; empty: there is none
	Cause string    // its "Kernel panic" line, without the time
	Time  time.Time // by the clock of then
	Count int       // panics of which there are records
	Files []string  // all records, to be removed when the text is kept
}

// partHeader is how the kernel begins each part of a dump (fs/pstore/platform.c, pstore_dump): the parts count
// backwards from the end of the log.
var partHeader = regexp.MustCompile(`^(Panic|Oops|Emergency|Shutdown|Unknown)#\d+ Part(\d+)\n`)

type part struct {
	file   string
	number int
	panics bool
	time   time.Time
	text   string
}

// ReadPanicLog reads the records below a mounted pstore. Whatever is there, it returns what could be read.
func ReadPanicLog(dir fs.FS) PanicLog {
	var log PanicLog
	var parts []part
	for _, name := range newestRecords(dir) {
		log.Files = append(log.Files, name)
		if p, ok := readPart(dir, name); ok {
			parts = append(parts, p)
		}
	}
	dumps := group(parts)
	log.Count = len(dumps)
	newest := pick(dumps)
	if newest == nil {
		return log
	}
	var text strings.Builder
	for _, p := range newest {
		text.WriteString(p.text)
	}
	log.Time = newest[0].time
	log.Text = text.String()[max(0, text.Len()-maxPanicText):]
	log.Cause = causeIn(log.Text)
	return log
}

// newestRecords lists the newest records, in the order of their names.
func newestRecords(dir fs.FS) (names []string) {
	entries, _ := fs.ReadDir(dir, ".") // a part of the list is better than none
	var records []fs.FileInfo
	for _, e := range entries {
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() {
			records = append(records, info)
		}
	}
	slices.SortStableFunc(records, func(a, b fs.FileInfo) int { return b.ModTime().Compare(a.ModTime()) })
	for _, r := range records[:min(len(records), maxRecords)] {
		names = append(names, r.Name())
	}
	slices.Sort(names)
	return names
}

func readPart(dir fs.FS, name string) (part, bool) {
	f, err := dir.Open(name)
	if err != nil {
		return part{}, false
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return part{}, false
	}
	data, _ := io.ReadAll(io.LimitReader(f, maxRecord)) // what came before an error is better than nothing
	p := part{file: name, time: info.ModTime()}
	if m := partHeader.FindSubmatch(data); m != nil {
		p.panics = string(m[1]) == "Panic"
		p.number, _ = strconv.Atoi(string(m[2])) // digits only
		data = data[len(m[0]):]
	}
	p.text = string(bytes.ToValidUTF8(data, nil))
	return p, len(data) > 0
}

// group puts the parts of one dump together, each dump in reading order.
func group(parts []part) [][]part {
	slices.SortStableFunc(parts, func(a, b part) int { return a.time.Compare(b.time) })
	var dumps [][]part
	for i, p := range parts {
		if i == 0 || p.time.Sub(parts[i-1].time) > sameDump {
			dumps = append(dumps, nil)
		}
		last := len(dumps) - 1
		dumps[last] = append(dumps[last], p)
	}
	for _, d := range dumps {
		slices.SortStableFunc(d, func(a, b part) int { return b.number - a.number })
	}
	return dumps
}

// pick takes the newest dump of a panic, or else the newest of all.
func pick(dumps [][]part) []part {
	for _, d := range slices.Backward(dumps) {
		if slices.ContainsFunc(d, func(p part) bool { return p.panics }) {
			return slices.DeleteFunc(d, func(p part) bool { return !p.panics })
		}
	}
	if len(dumps) == 0 {
		return nil
	}
	return dumps[len(dumps)-1]
}

var (
	logPrefix = regexp.MustCompile(`^(<\d+>)?\[\s*\d+\.\d+\]\s*(\[[^\]]*\]\s*)?`)
	causes    = []string{"Kernel panic - not syncing", "BUG:", "Oops:", "general protection fault", "Out of memory"}
)

// causeIn finds the line that says why the kernel stopped.
func causeIn(text string) string {
	for _, mark := range causes {
		for line := range strings.Lines(text) {
			if at := strings.Index(line, mark); at >= 0 {
				return strings.TrimSpace(logPrefix.ReplaceAllString(line, ""))
			}
		}
	}
	return ""
}
