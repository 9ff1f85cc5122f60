package journal

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/keepout-security/keepout/event"
)

// Kind says what a line holds.
type Kind uint8

// The kinds. The zero value is none of them.
const (
	KindEvent   Kind = iota + 1 // an event and its verdict
	KindFinding                 // a Detection Finding, which points to an event
	KindNote                    // an entry of the change journal
)

// String returns "event", "finding" or "note".
func (k Kind) String() string {
	switch k {
	case KindEvent:
		return "event"
	case KindFinding:
		return "finding"
	case KindNote:
		return "note"
	default:
		return fmt.Sprintf("kind(%d)", uint8(k))
	}
}

// Entry is a decoded line.
type Entry struct {
	Kind Kind
	Seq  uint64 // 0 outside the journal
	Prev string // empty outside the journal
	// Record is set for events. For findings it holds what the finding repeats: the event's id, type, time and
	// actor, the path, and the verdict without its ballots.
	Record event.Record
	Note   Note   // set for notes
	Line   []byte // the line itself, without its newline; Read reuses it after its callback returns
}

// Time is when the event or the note happened.
func (e *Entry) Time() time.Time {
	if e.Kind == KindNote {
		return e.Note.Time
	}
	return e.Record.Event.Time
}

// Decode reads one line, with or without its newline. For a line of Encode or of the journal it gives back
// the record or the note, with these differences: latencies are whole microseconds, times are in UTC, texts
// are cut to their bounds, and bytes of a provider's texts that are not UTF-8 are replaced. Unknown fields
// are ignored. The Entry keeps line.
func Decode(line []byte) (Entry, error) {
	if len(line) > MaxLine {
		return Entry{}, fmt.Errorf("decode journal line: %d bytes are more than %d", len(line), MaxLine)
	}
	var o Object
	if err := json.Unmarshal(line, &o); err != nil {
		return Entry{}, fmt.Errorf("decode journal line: %w", err)
	}
	k := &o.Unmapped.Keepout
	e := Entry{Seq: k.Seq, Prev: k.Prev, Line: line}
	var err error
	switch o.ClassUID {
	case classLifecycle:
		e.Kind = KindNote
		e.Note, err = decodeNote(&o)
	case classFinding:
		e.Kind = KindFinding
		if len(o.Evidences) > 0 {
			o.Actor, o.File, o.Process = o.Evidences[0].Actor, o.Evidences[0].File, o.Evidences[0].Process
		}
		if len(o.Evidences) > 1 {
			o.FileResult = o.Evidences[1].File
		}
		e.Record, err = decodeRecord(&o)
	case classFile, classProcess:
		e.Kind = KindEvent
		e.Record, err = decodeRecord(&o)
	default:
		err = fmt.Errorf("class_uid %d is none of the journal's", o.ClassUID)
	}
	if err != nil {
		return Entry{}, fmt.Errorf("decode journal line: %w", err)
	}
	return e, nil
}

func decodeNote(o *Object) (Note, error) {
	body := o.Unmapped.Keepout.Note
	if body == nil {
		return Note{}, errors.New("note without its body")
	}
	return Note{
		Time: instant(o.Unmapped.Keepout.TimeNS), Code: o.Metadata.EventCode, Title: body.Title,
		Severity: o.SeverityID, Provider: body.Provider, Detail: body.Detail,
	}, nil
}

func decodeRecord(o *Object) (event.Record, error) {
	k := &o.Unmapped.Keepout
	var rec event.Record
	var err error
	ev := &rec.Event
	if ev.ID, err = strconv.ParseUint(k.EventID, 16, 64); err != nil {
		return rec, fmt.Errorf("event id: %w", err)
	}
	if ev.Type, err = event.ParseType(k.Event); err != nil {
		return rec, err
	}
	if o.ClassUID != classFinding && o.ClassUID != activities[ev.Type].class {
		return rec, fmt.Errorf("class_uid %d does not fit event %s", o.ClassUID, ev.Type)
	}
	ev.Time = instant(k.TimeNS)
	if o.Actor == nil {
		return rec, errors.New("event without an actor")
	}
	if ev.Actor, err = decodeProcess(&o.Actor.Process); err != nil {
		return rec, err
	}
	ev.Actor.GID = k.GID
	decodeFile(ev, o)
	rec.Verdict, err = decodeVerdict(k)
	return rec, err
}

func decodeProcess(p *Process) (event.Process, error) {
	out := event.Process{PID: p.PID, Comm: p.Name}
	if p.UID != "" {
		token, err := strconv.ParseUint(p.UID, 10, 64)
		if err != nil {
			return out, fmt.Errorf("process uid: %w", err)
		}
		out.Token = token
	}
	if p.User != nil {
		uid, err := strconv.ParseUint(p.User.UID, 10, 32)
		if err != nil {
			return out, fmt.Errorf("user uid: %w", err)
		}
		out.UID = uint32(uid)
	}
	if p.Parent != nil {
		out.PPID = p.Parent.PID
	}
	return out, nil
}

// decodeFile takes names from the OCSF fields and the rest, and the names that JSON cannot hold, from our
// part.
func decodeFile(ev *event.Event, o *Object) {
	file := o.File
	if o.Process != nil {
		file = o.Process.File
	}
	switch ev.Type {
	case event.Create, event.Delete, event.Rename:
		if file != nil {
			ev.File.Path, ev.Name = file.ParentFolder, file.Name
		}
		if o.FileResult != nil {
			ev.NewDir, ev.NewName = o.FileResult.ParentFolder, o.FileResult.Name
		}
	case event.Open, event.Exec, event.CloseWrite:
		if file != nil {
			ev.File.Path = file.Path
			for _, h := range file.Hashes {
				if h.AlgorithmID == sha256ID {
					ev.File.SHA256 = clip(h.Value, maxWord)
				}
			}
		}
	}
	if v := o.Unmapped.Keepout.Version; v != nil {
		ev.File.Version = event.Version{
			Dev: v.Dev, Handle: string(v.Handle), Ino: v.Ino, Size: v.Size, MtimeNS: v.MtimeNS, CtimeNS: v.CtimeNS,
		}
		ev.File.Mode, ev.File.UID = v.Mode, v.UID
	}
	if r := o.Unmapped.Keepout.Raw; r != nil {
		replace(&ev.File.Path, r.Path)
		replace(&ev.Name, r.Name)
		replace(&ev.NewDir, r.NewDir)
		replace(&ev.NewName, r.NewName)
		replace(&ev.Actor.Comm, r.Comm)
	}
}

func replace(s *string, raw []byte) {
	if raw != nil {
		*s = string(raw)
	}
}

func decodeVerdict(k *Keepout) (event.Verdict, error) {
	v := event.Verdict{
		Outcome: event.Outcome(k.Outcome), Allowed: k.Allowed, Reason: event.Reason(k.Reason),
		DecidedBy: k.DecidedBy, Rule: k.Rule, Mode: event.Mode(k.Mode),
		Latency: microseconds(k.LatencyUS), Shared: k.Shared,
	}
	for i := range k.Ballots {
		b := &k.Ballots[i]
		action, err := parseAction(b.Action)
		if err != nil {
			return v, err
		}
		v.Ballots = append(v.Ballots, event.Ballot{
			Provider: b.Provider, Mode: event.Mode(b.Mode), Counted: b.Counted, Reason: event.Reason(b.Reason),
			Vote:    event.Vote{Action: action, Confidence: b.Confidence, Rule: b.Rule, Content: b.Content},
			Latency: microseconds(b.LatencyUS),
		})
	}
	return v, nil
}

func parseAction(word string) (event.Action, error) {
	for _, a := range []event.Action{event.Abstain, event.Allow, event.Deny} {
		if a.String() == word {
			return a, nil
		}
	}
	return 0, fmt.Errorf("unknown action %q", word)
}

func microseconds(n int64) time.Duration { return time.Duration(n) * time.Microsecond }

// instant is the inverse of nanoseconds.
func instant(ns int64) time.Time {
	if ns == 0 {
		return time.Time{}
	}
	return time.Unix(0, ns).UTC()
}
