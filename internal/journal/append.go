package journal

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"path"
	"strconv"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/keepout-security/keepout/event"
)

// encoder writes lines; it keeps its buffers, so one is for one goroutine.
//
// An activity, of which there is one for each record, is written by hand and without allocating: appendActivity says
// what OCSF and encoding/json would say (TestAppendIsOCSF), in a sixth of the time. Notes and findings are rare and
// go the long way, and so does any text with something to escape.
type encoder struct {
	begin  [len(activities)][]byte // up to the time
	source []byte                  // of device and metadata, up to the event's id
	buf    bytes.Buffer
	json   *json.Encoder
}

func newEncoder(origin Origin) *encoder {
	e := &encoder{}
	e.json = json.NewEncoder(&e.buf)
	e.json.SetEscapeHTML(false)
	for t, act := range activities {
		e.begin[t] = fmt.Appendf(nil, `{"class_uid":%d,"class_name":%q,"category_uid":%d,"activity_id":%d,`+
			`"activity_name":%q,"type_uid":%d,"time":`,
			act.class, act.className, act.class/1000, act.id, act.name, act.class*100+act.id)
	}
	b := e.omitEmpty([]byte(`,"device":{"type_id":0`), `,"hostname":"`, origin.Host)
	b = append(b, `},"metadata":{"version":"`+SchemaVersion+`","product":{"name":"`+productName+`","vendor_name":"`+
		productName+`"`...)
	b = e.omitEmpty(b, `,"version":"`, origin.Version)
	b = append(b, `},"profiles":["`+profiles[0]+`","`+profiles[1]+`"],"log_name":"`+logName+`","uid":"`...)
	e.source = b
	return e
}

// appendLine appends o as one line with its newline.
func (e *encoder) appendLine(dst []byte, o *Object) ([]byte, error) {
	e.buf.Reset()
	if err := e.json.Encode(o); err != nil {
		return dst, fmt.Errorf("encode journal line: %w", err)
	}
	return appendVisible(dst, e.buf.Bytes()), nil
}

// appendActivity appends the activity of rec, whose type is valid, as one line with its newline, behind the line before
// it. Without a line before it, it does not say its number.
func (e *encoder) appendActivity(b []byte, rec *event.Record, before link) []byte {
	ev, v := &rec.Event, &rec.Verdict
	selftest := rec.Selftest()
	b = append(b, e.begin[ev.Type]...)
	b = strconv.AppendInt(b, milliseconds(ev.Time), 10)
	level, status := severity(v.Outcome), statusSuccess
	if selftest {
		level = Informational
	}
	action, disposed := disposition(v)
	if action == actionDenied {
		status = statusFailure
	}
	b = number(b, `,"severity_id":`, level)
	b = number(b, `,"status_id":`, status)
	b = e.omitEmpty(b, `,"status_detail":"`, clip(string(v.Reason), maxWord))
	b = number(b, `,"action_id":`, action)
	b = number(b, `,"disposition_id":`, disposed)
	b = e.appendMessage(append(b, `,"message":"`...), ev.Type, v, selftest)
	b = e.appendActor(append(b, `","actor":{"process":{"pid":`...), &ev.Actor)
	b = append(e.appendObject(append(b, `}}`...), ev), e.source...)
	b = strconv.AppendUint(b, ev.ID, 16)
	b = strconv.AppendUint(append(b, `","correlation_uid":"`...), ev.ID, 16)
	b = append(b, '"')
	if before.known() {
		b = number(b, `,"sequence":`, before.seq+1)
	}
	b = strconv.AppendUint(append(b, `},"unmapped":{"keepout":{"event_id":"`...), ev.ID, 16)
	b = append(append(b, `","event":"`...), ev.Type.String()...)
	b = append(b, '"')
	if ns := nanoseconds(ev.Time); ns != 0 {
		b = append(number(b, `,"time_ns":"`, ns), '"')
	}
	b = e.appendVerdict(b, v)
	if selftest {
		b = append(b, `,"selftest":true`...)
	}
	if ev.Actor.GID != 0 {
		b = number(b, `,"gid":`, ev.Actor.GID)
	}
	b = e.appendVersion(b, &ev.File)
	if raw := rawNames(ev); raw != nil {
		b = e.appendValue(append(b, `,"raw":`...), raw)
	}
	if before.known() {
		b = number(b, `,"seq":`, before.seq+1)
		b = append(append(append(b, `,"prev":"`...), before.hash[:]...), '"')
	}
	return append(b, "}}}\n"...)
}

func (e *encoder) appendMessage(b []byte, t event.Type, v *event.Verdict, selftest bool) []byte {
	if selftest {
		b = append(b, selftestMark...)
	}
	b = append(b, t.String()...)
	if v.Outcome == "" {
		return append(b, seen...)
	}
	b = e.appendText(append(b, decidedBy(v)...), clip(v.DecidedBy, maxWord))
	if v.Rule != "" {
		b = e.appendText(append(b, ": "...), clip(v.Rule, maxWord))
	}
	return b
}

func (e *encoder) appendActor(b []byte, p *event.Process) []byte {
	b = strconv.AppendInt(b, int64(p.PID), 10)
	b = appendToken(b, p.Token)
	b = e.omitEmpty(b, `,"name":"`, clip(p.Comm, maxWord))
	b = append(number(b, `,"user":{"uid":"`, p.UID), `"}`...)
	if p.PPID != 0 {
		b = append(number(b, `,"parent_process":{"pid":`, p.PPID), '}')
	}
	return b
}

func appendToken(b []byte, token uint64) []byte {
	if token == 0 {
		return b
	}
	return append(number(b, `,"uid":"`, token), '"')
}

// appendObject appends what was acted upon: file, process, or one or two entries of folders.
func (e *encoder) appendObject(b []byte, ev *event.Event) []byte {
	switch ev.Type {
	case event.Create, event.Delete:
		return e.appendEntry(b, `,"file":{"name":"`, ev.File.Path, ev.Name)
	case event.Rename:
		b = e.appendEntry(b, `,"file":{"name":"`, ev.File.Path, ev.Name)
		return e.appendEntry(b, `,"file_result":{"name":"`, ev.NewDir, ev.NewName)
	case event.Exec:
		b = number(b, `,"process":{"pid":`, ev.Actor.PID)
		b = e.appendFile(append(appendToken(b, ev.Actor.Token), `,"file":{"name":"`...), &ev.File)
		return append(number(b, `,"user":{"uid":"`, ev.Actor.UID), `"}}`...)
	case event.Open, event.CloseWrite:
	}
	return e.appendFile(append(b, `,"file":{"name":"`...), &ev.File)
}

func (e *encoder) appendEntry(b []byte, key, dir, name string) []byte {
	f := entry(dir, name)
	b = append(e.appendText(append(b, key...), f.Name), '"')
	b = e.omitEmpty(b, `,"path":"`, f.Path)
	b = e.omitEmpty(b, `,"parent_folder":"`, f.ParentFolder)
	return append(b, `,"type_id":0}`...)
}

func (e *encoder) appendFile(b []byte, f *event.File) []byte {
	name := clip(f.Path, maxPath)
	if name != "" {
		b = e.appendText(b, path.Base(name))
	}
	b = e.omitEmpty(append(b, '"'), `,"path":"`, name)
	b = number(b, `,"type_id":`, fileType(f.Mode))
	if f.Size != 0 {
		b = number(b, `,"size":`, f.Size)
	}
	if ms := f.MtimeNS / int64(time.Millisecond); ms != 0 {
		b = number(b, `,"modified_time":`, ms)
	}
	b = append(number(b, `,"owner":{"uid":"`, f.UID), `"}`...)
	if f.SHA256 != "" {
		b = number(b, `,"hashes":[{"algorithm_id":`, sha256ID)
		b = append(e.appendText(append(b, `,"algorithm":"SHA-256","value":"`...), f.SHA256), `"}]`...)
	}
	return append(b, '}')
}

// appendVerdict appends what verdictPart says of the verdict.
func (e *encoder) appendVerdict(b []byte, v *event.Verdict) []byte {
	b = e.omitEmpty(b, `,"outcome":"`, clip(string(v.Outcome), maxWord))
	if v.Allowed {
		b = append(b, `,"allowed":true`...)
	}
	b = e.omitEmpty(b, `,"reason":"`, clip(string(v.Reason), maxWord))
	b = e.omitEmpty(b, `,"decided_by":"`, clip(v.DecidedBy, maxWord))
	b = e.omitEmpty(b, `,"rule":"`, clip(v.Rule, maxWord))
	b = e.omitEmpty(b, `,"mode":"`, clip(string(v.Mode), maxWord))
	b = latency(b, v.Latency)
	if v.Shared != 0 {
		b = number(b, `,"shared":`, v.Shared)
	}
	key := `,"ballots":[{"provider":"`
	for i := range min(len(v.Ballots), maxBallots) {
		b = e.appendBallot(append(b, key...), &v.Ballots[i])
		key = `,{"provider":"`
	}
	if len(v.Ballots) > 0 {
		b = append(b, ']')
	}
	return b
}

func (e *encoder) appendBallot(b []byte, x *event.Ballot) []byte {
	b = append(e.appendText(b, clip(x.Provider, maxWord)), '"')
	b = e.omitEmpty(b, `,"mode":"`, clip(string(x.Mode), maxWord))
	b = append(append(append(b, `,"action":"`...), x.Vote.Action.String()...), '"')
	if x.Vote.Confidence != 0 {
		b = number(b, `,"confidence":`, x.Vote.Confidence)
	}
	b = e.omitEmpty(b, `,"rule":"`, clip(x.Vote.Rule, maxWord))
	b = e.omitEmpty(b, `,"content":"`, clip(x.Vote.Content, maxWord))
	b = e.omitEmpty(b, `,"reason":"`, clip(string(x.Reason), maxWord))
	return append(strconv.AppendBool(append(latency(b, x.Latency), `,"counted":`...), x.Counted), '}')
}

func latency(b []byte, d time.Duration) []byte {
	if us := d.Microseconds(); us != 0 {
		return number(b, `,"latency_us":`, us)
	}
	return b
}

func (e *encoder) appendVersion(b []byte, f *event.File) []byte {
	b = number(b, `,"file_version":{"dev":"`, f.Dev)
	b = number(b, `","ino":"`, f.Ino)
	b = append(b, '"')
	if f.Handle != "" {
		var handle [maxWord]byte
		n := copy(handle[:], clip(f.Handle, maxWord))
		b = append(base64.StdEncoding.AppendEncode(append(b, `,"handle":"`...), handle[:n]), '"')
	}
	b = number(b, `,"size":`, f.Size)
	b = number(b, `,"mtime_ns":"`, f.MtimeNS)
	b = number(b, `","ctime_ns":"`, f.CtimeNS)
	b = number(b, `","mode":`, f.Mode)
	return append(number(b, `,"uid":`, f.UID), '}')
}

// number appends what comes before a number, and the number.
func number[N int | int32 | int64 | uint8 | uint32 | uint64 | Severity](b []byte, before string, n N) []byte {
	b = append(b, before...)
	if n < 0 {
		return strconv.AppendInt(b, int64(n), 10)
	}
	return strconv.AppendUint(b, uint64(n), 10)
}

// omitEmpty appends what comes before a text, the text, and the quote that ends it; nothing where the text is empty.
func (e *encoder) omitEmpty(b []byte, before, text string) []byte {
	if text == "" {
		return b
	}
	return append(e.appendText(append(b, before...), text), '"')
}

// appendText appends what stands between the quotes.
func (e *encoder) appendText(b []byte, text string) []byte {
	if plainText(text) {
		return append(b, text...)
	}
	from := len(b)
	b = e.appendValue(b, text)
	return append(b[:from], b[from+1:len(b)-1]...)
}

// appendValue appends v as encoding/json and appendVisible write it.
func (e *encoder) appendValue(b []byte, v any) []byte {
	e.buf.Reset()
	_ = e.json.Encode(v) // of texts and bytes, which are always encoded
	return appendVisible(b, bytes.TrimSuffix(e.buf.Bytes(), []byte{'\n'}))
}

// plainText reports whether text stands in a line as it is.
func plainText(text string) bool {
	for i := 0; i < len(text); {
		c := text[i]
		if c < utf8.RuneSelf {
			if c < ' ' || c == '"' || c == '\\' || c == 0x7f {
				return false
			}
			i++
			continue
		}
		r, size := utf8.DecodeRuneInString(text[i:])
		// The line separators are of other classes, but encoding/json escapes them, too.
		if r == utf8.RuneError && size == 1 || r == '\u2028' || r == '\u2029' || unicode.Is(unicode.C, r) {
			return false
		}
		i += size
	}
	return true
}
