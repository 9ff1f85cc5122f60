package journal

import (
	"bytes"
	"path"
	"strconv"
	"time"

	"github.com/keepout-security/keepout/event"
)

// Origin says which host and which build wrote an object. Empty fields do not show.
type Origin struct {
	Host    string // host name
	Version string // Keepout's version
}

// Words and numbers of OCSF 1.3.0 and of its security_control profile.
const (
	logName         = "keepout"
	productName     = "Keepout"
	activityOther   = 99
	activityCreate  = 1
	statusSuccess   = 1
	statusFailure   = 2
	findingNew      = 1
	actionAllowed   = 1
	actionDenied    = 2
	dispAllowed     = 1
	dispBlocked     = 2
	dispNoAction    = 16
	dispLogged      = 17
	analyticRule    = 1
	typeIDRegular   = 1
	typeIDOther     = 99
	selftestMark    = "self-test: "
	findingUIDAfter = "-finding" // keeps metadata.uid of a finding apart from that of its event
)

// activity is an event type's place in OCSF.
type activity struct {
	class, id int
	className string
	name      string
}

var activities = [...]activity{
	event.Open:       {classFile, 14, "File System Activity", "Open"},
	event.Exec:       {classProcess, 1, "Process Activity", "Launch"},
	event.CloseWrite: {classFile, 3, "File System Activity", "Update"},
	event.Create:     {classFile, 1, "File System Activity", "Create"},
	event.Rename:     {classFile, 5, "File System Activity", "Rename"},
	event.Delete:     {classFile, 4, "File System Activity", "Delete"},
}

// profiles are those that every verdict uses: action and disposition, and the device.
var profiles = []string{"security_control", "host"}

// FormatID writes an event id as people see it: lower-case hex.
func FormatID(id uint64) string { return strconv.FormatUint(id, 16) }

// Encode returns the lines of rec without newlines, as Append would write them but for the sequence number
// and the link to the line before, which only the journal can give.
func Encode(rec event.Record, origin Origin) ([][]byte, error) {
	if !rec.Event.Type.Valid() {
		return nil, nil
	}
	e := newEncoder(origin)
	lines := [][]byte{e.appendActivity(nil, &rec, link{})}
	if detected(&rec) {
		o := OCSF(rec, origin)[1]
		line, err := e.appendLine(nil, &o)
		if err != nil {
			return nil, err
		}
		lines = append(lines, line)
	}
	for i := range lines {
		lines[i] = bytes.TrimSuffix(lines[i], []byte{'\n'})
	}
	return lines, nil
}

// detected reports whether a Detection Finding belongs to rec.
func detected(rec *event.Record) bool {
	o := rec.Verdict.Outcome
	return (o == event.Denied || o == event.WouldDeny) && !rec.Selftest()
}

// OCSF returns the objects of rec: the activity, and a Detection Finding when it was denied or would have
// been, unless that was a self-test. A record whose event type is not valid has none. The objects share memory with
// each other.
func OCSF(rec event.Record, origin Origin) []Object {
	ev, v := &rec.Event, &rec.Verdict
	if !ev.Type.Valid() {
		return nil
	}
	act := activities[ev.Type]
	o := Object{
		ClassUID: act.class, ClassName: act.className, CategoryUID: act.class / 1000,
		ActivityID: act.id, ActivityName: act.name, TypeUID: act.class*100 + act.id,
		Time: milliseconds(ev.Time), SeverityID: severity(v.Outcome),
		StatusID: statusSuccess, StatusDetail: clip(string(v.Reason), maxWord),
		Message: message(ev.Type, v),
		Device:  Device{Hostname: origin.Host},
		Metadata: Metadata{
			Version: SchemaVersion, Product: Product{productName, productName, origin.Version},
			Profiles: profiles, LogName: logName, UID: FormatID(ev.ID), CorrelationUID: FormatID(ev.ID),
		},
	}
	o.ActionID, o.DispositionID = disposition(v)
	if o.ActionID == actionDenied {
		o.StatusID = statusFailure
	}
	setObjects(&o, ev)
	o.Unmapped.Keepout = verdictPart(ev, v)
	if rec.Selftest() { // a canary of ours was recognised: nobody is to be called for that
		o.SeverityID, o.Message = Informational, selftestMark+o.Message
		o.Unmapped.Keepout.Selftest = true
	}
	if !detected(&rec) {
		return []Object{o}
	}
	return []Object{o, finding(&o, rec)}
}

// parts is what one object points to, in one allocation.
type parts struct {
	actor        Actor
	process      Process
	parent       Process
	user, owner  User
	file, result File
}

// setObjects fills actor, file and process.
func setObjects(o *Object, ev *event.Event) {
	p := new(parts)
	p.user.UID = strconv.FormatUint(uint64(ev.Actor.UID), 10)
	p.actor.Process = Process{PID: ev.Actor.PID, Name: clip(ev.Actor.Comm, maxWord), User: &p.user}
	if ev.Actor.Token != 0 {
		p.actor.Process.UID = strconv.FormatUint(ev.Actor.Token, 10)
	}
	if ev.Actor.PPID != 0 {
		p.parent.PID = ev.Actor.PPID
		p.actor.Process.Parent = &p.parent
	}
	o.Actor = &p.actor
	switch ev.Type {
	case event.Create, event.Delete, event.Rename:
		p.file = entry(ev.File.Path, ev.Name)
		o.File = &p.file
		if ev.Type == event.Rename {
			p.result = entry(ev.NewDir, ev.NewName)
			o.FileResult = &p.result
		}
		return
	case event.Open, event.Exec, event.CloseWrite:
	}
	name := clip(ev.File.Path, maxPath)
	p.owner.UID = strconv.FormatUint(uint64(ev.File.UID), 10)
	p.file = File{
		Path: name, TypeID: fileType(ev.File.Mode), Size: ev.File.Size,
		ModifiedTime: ev.File.MtimeNS / int64(time.Millisecond), Owner: &p.owner,
	}
	if ev.File.SHA256 != "" {
		p.file.Hashes = []Hash{{AlgorithmID: sha256ID, Algorithm: "SHA-256", Value: ev.File.SHA256}}
	}
	if name != "" {
		p.file.Name = path.Base(name)
	}
	if ev.Type != event.Exec {
		o.File = &p.file
		return
	}
	// execve(2) keeps the process, so the launched one and the actor are the same.
	p.process = Process{PID: ev.Actor.PID, UID: p.actor.Process.UID, File: &p.file, User: &p.user}
	o.Process = &p.process
}

// entry is a folder's entry; what kind of file it is, is not known.
func entry(dir, name string) File {
	dir, name = clip(dir, maxPath), clip(name, maxPath)
	return File{Name: name, Path: path.Join(dir, name), ParentFolder: dir}
}

// fileType maps st_mode's format bits (inode(7)) to OCSF's file type_id.
func fileType(mode uint32) int {
	switch mode & 0o170000 {
	case 0:
		return 0
	case 0o100000:
		return typeIDRegular
	case 0o040000:
		return 2
	case 0o020000:
		return 3
	case 0o060000:
		return 4
	case 0o140000:
		return 5
	case 0o010000:
		return 6
	case 0o120000:
		return 7
	default:
		return typeIDOther
	}
}

// verdictPart is our own part of the object: the verdict and what the OCSF fields cannot give back exactly.
func verdictPart(ev *event.Event, v *event.Verdict) Keepout {
	return Keepout{
		EventID: FormatID(ev.ID), Event: ev.Type.String(), TimeNS: nanoseconds(ev.Time),
		Outcome: clip(string(v.Outcome), maxWord), Allowed: v.Allowed, Reason: clip(string(v.Reason), maxWord),
		DecidedBy: clip(v.DecidedBy, maxWord), Rule: clip(v.Rule, maxWord), Mode: clip(string(v.Mode), maxWord),
		LatencyUS: v.Latency.Microseconds(), Shared: v.Shared, Ballots: ballots(v.Ballots),
		GID: ev.Actor.GID,
		Version: &Version{
			Dev: ev.File.Dev, Ino: ev.File.Ino, Handle: []byte(clip(ev.File.Handle, maxWord)),
			Size: ev.File.Size, MtimeNS: ev.File.MtimeNS, CtimeNS: ev.File.CtimeNS,
			Mode: ev.File.Mode, UID: ev.File.UID,
		},
		Raw: rawNames(ev),
	}
}

func ballots(in []event.Ballot) []Ballot {
	if len(in) == 0 {
		return nil
	}
	out := make([]Ballot, min(len(in), maxBallots))
	for i := range out {
		b := &in[i]
		out[i] = Ballot{
			Provider: clip(b.Provider, maxWord), Mode: clip(string(b.Mode), maxWord),
			Action: b.Vote.Action.String(), Confidence: b.Vote.Confidence,
			Rule: clip(b.Vote.Rule, maxWord), Content: clip(b.Vote.Content, maxWord),
			Reason: clip(string(b.Reason), maxWord), LatencyUS: b.Latency.Microseconds(), Counted: b.Counted,
		}
	}
	return out
}

// finding is the Detection Finding that belongs to the activity o.
func finding(o *Object, rec event.Record) Object {
	v := &rec.Verdict
	f := Object{
		ClassUID: classFinding, ClassName: "Detection Finding", CategoryUID: classFinding / 1000,
		ActivityID: activityCreate, ActivityName: "Create", TypeUID: classFinding*100 + activityCreate,
		Time: o.Time, SeverityID: o.SeverityID, StatusID: findingNew, StatusDetail: o.StatusDetail,
		ActionID: o.ActionID, DispositionID: o.DispositionID, Message: o.Message,
		FindingInfo: &FindingInfo{
			UID: FormatID(rec.Event.ID), Title: o.Message, Types: []string{string(v.Outcome)},
		},
		Evidences: []Evidence{{Actor: o.Actor, File: o.File, Process: o.Process}},
		Device:    o.Device, Metadata: o.Metadata,
	}
	if o.FileResult != nil {
		f.Evidences = append(f.Evidences, Evidence{File: o.FileResult})
	}
	f.Metadata.UID += findingUIDAfter
	f.FindingInfo.Analytic = &Analytic{
		TypeID: analyticRule, Name: clip(v.Rule, maxWord), Category: clip(v.DecidedBy, maxWord),
	}
	for i := range v.Ballots {
		if b := &v.Ballots[i]; b.Provider == v.DecidedBy {
			f.FindingInfo.Analytic.Version = clip(b.Vote.Content, maxWord)
			break
		}
	}
	part := o.Unmapped.Keepout
	// The ballots and the file's version stand once, on the event; its id leads there.
	part.Ballots, part.Version = nil, nil
	f.Unmapped.Keepout = part
	return f
}

// disposition maps the outcome to action_id and disposition_id. A notify event has no verdict and no outcome.
func disposition(v *event.Verdict) (action, disposition int) {
	switch {
	case v.Outcome == "":
		return actionAllowed, dispNoAction
	case v.Outcome == event.WouldDeny:
		return actionAllowed, dispLogged
	case v.Allowed:
		return actionAllowed, dispAllowed
	default:
		return actionDenied, dispBlocked
	}
}

func severity(outcome event.Outcome) Severity {
	switch outcome {
	case event.Denied:
		return High
	case event.WouldDeny:
		return Medium
	case event.Timeout, event.Unavailable:
		return Low
	case event.Allowed:
	}
	return Informational
}

// message is the one sentence for people; the path stays out of it, it has its own field.
func message(t event.Type, v *event.Verdict) string {
	if v.Outcome == "" {
		return t.String() + seen
	}
	text := t.String() + decidedBy(v) + clip(v.DecidedBy, maxWord)
	if v.Rule != "" {
		text += ": " + clip(v.Rule, maxWord)
	}
	return text
}

// seen ends the message about what nobody was asked about.
const seen = " seen"

// decidedBy says what was decided, up to the name of who did.
func decidedBy(v *event.Verdict) string {
	switch v.Outcome {
	case event.Denied:
		return " denied by "
	case event.WouldDeny:
		return " would be denied by "
	case event.Timeout, event.Unavailable, event.Allowed:
		if v.Allowed {
			return " allowed by "
		}
		return " denied by "
	}
	return " decided by "
}

func milliseconds(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func nanoseconds(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}
