package journal

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
)

// maxBreaks bounds what Verify lists.
const maxBreaks = 100

// Report is what Verify found. The journal is intact when Breaks is empty; whether lines are missing at the
// end, or all of it was written anew, only a Head that was kept elsewhere can tell.
type Report struct {
	Files int    `json:"files"`
	Lines uint64 `json:"lines"`
	First uint64 `json:"first"` // number of the first line that is kept
	Head  Head   `json:"head"`  // of the last complete line
	// Start is true when the first line ever is there. Otherwise rotation has removed the lines before First,
	// and the first line's link to them cannot be checked any more.
	Start     bool    `json:"start"`
	TornBytes int64   `json:"torn_bytes"` // of an incomplete last line: a power cut, or a line being written
	Breaks    []Break `json:"breaks"`
	More      bool    `json:"more"` // there are more breaks than Breaks holds
}

// Intact reports whether every line is linked to the one before it.
func (r *Report) Intact() bool { return len(r.Breaks) == 0 }

// Break is a place where the chain does not hold.
type Break struct {
	File string `json:"file"` // name without its folder
	Line int    `json:"line"` // from 1
	Why  string `json:"why"`
}

// String is "file:line: why".
func (b Break) String() string { return fmt.Sprintf("%s:%d: %s", b.File, b.Line, b.Why) }

// Verify walks the chain of the journal in dir and reports every place where it breaks; its error is about
// reading only. The journal may be open meanwhile. Lines are compared as they are, so that it also works on
// files copied from another host.
func Verify(dir string) (Report, error) {
	files, err := segments(dir)
	if err != nil {
		return Report{}, fmt.Errorf("verify journal: %w", err)
	}
	v := verifier{report: Report{Head: Head{Hash: noHash}}}
	for i, s := range files {
		v.last = i == len(files)-1
		if err := v.file(s); err != nil {
			return v.report, fmt.Errorf("verify journal: %s: %w", s.path, err)
		}
	}
	return v.report, nil
}

type verifier struct {
	report Report
	name   string
	line   int
	last   bool // this is the newest file
}

func (v *verifier) file(s segment) error {
	f, err := openSegment(s)
	if f == nil || err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	v.report.Files++
	v.name, v.line = filepath.Base(s.path), 0
	reader := newLineReader(f)
	for {
		line, err := reader.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		v.line++
		if line.complete {
			v.check(line, s)
			continue
		}
		if v.last {
			v.report.TornBytes = line.bytes
		} else {
			v.broken("the line is incomplete")
		}
	}
}

// check compares one line with the end of the chain so far, which it then becomes, so that each break is
// named once.
func (v *verifier) check(line rawLine, s segment) {
	before := v.report.Head
	v.report.Lines++
	entry, err := Decode(line.text)
	v.report.Head = Head{Seq: entry.Seq, Hash: line.sum}
	if v.report.Lines == 1 {
		v.report.First = s.first
		if err == nil {
			v.report.First = entry.Seq
			v.report.Start = entry.Seq == 1 && entry.Prev == noHash
		}
	}
	switch {
	case err != nil:
		v.report.Head.Seq = before.Seq + 1
		v.broken(err.Error())
	case v.line == 1 && entry.Seq != s.first:
		v.broken(fmt.Sprintf("the file's name promises line %d, it begins with %d", s.first, entry.Seq))
	case v.report.Lines == 1:
		if entry.Seq == 1 && entry.Prev != noHash {
			v.broken("the first line ever is linked to another line")
		}
	case entry.Seq != before.Seq+1:
		v.broken(fmt.Sprintf("number %d follows number %d: lines were removed, added or moved",
			entry.Seq, before.Seq))
	case entry.Prev != before.Hash:
		v.broken(fmt.Sprintf("number %d is not linked to the line before it: that line was changed", entry.Seq))
	}
}

func (v *verifier) broken(why string) {
	if len(v.report.Breaks) >= maxBreaks {
		v.report.More = true
		return
	}
	v.report.Breaks = append(v.report.Breaks, Break{File: v.name, Line: v.line, Why: why})
}
