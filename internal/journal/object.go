package journal

// SchemaVersion is the OCSF version of every object, https://schema.ocsf.io/1.3.0.
const SchemaVersion = "1.3.0"

// The OCSF classes that the journal writes.
const (
	classFile      = 1001 // File System Activity
	classProcess   = 1007 // Process Activity
	classFinding   = 2004 // Detection Finding
	classLifecycle = 6002 // Application Lifecycle
)

// Object is one line of the journal: an OCSF event of one of four classes. Fields that a class does not
// have are nil or empty and do not show in the JSON. Field order in the JSON is the order here.
type Object struct {
	ClassUID      int          `json:"class_uid"`
	ClassName     string       `json:"class_name"`
	CategoryUID   int          `json:"category_uid"`
	ActivityID    int          `json:"activity_id"`
	ActivityName  string       `json:"activity_name,omitempty"`
	TypeUID       int          `json:"type_uid"` // class_uid * 100 + activity_id
	Time          int64        `json:"time"`     // milliseconds since 1970
	SeverityID    Severity     `json:"severity_id"`
	StatusID      int          `json:"status_id"`
	StatusDetail  string       `json:"status_detail,omitempty"`
	ActionID      int          `json:"action_id,omitempty"`      // 1 allowed, 2 denied
	DispositionID int          `json:"disposition_id,omitempty"` // 1 allowed, 2 blocked, 16 no action, 17 logged
	Message       string       `json:"message,omitempty"`
	FindingInfo   *FindingInfo `json:"finding_info,omitempty"`
	Actor         *Actor       `json:"actor,omitempty"`
	File          *File        `json:"file,omitempty"`
	FileResult    *File        `json:"file_result,omitempty"` // where a rename went
	Process       *Process     `json:"process,omitempty"`
	Evidences     []Evidence   `json:"evidences,omitempty"`
	App           *Product     `json:"app,omitempty"`
	Device        Device       `json:"device"`
	Metadata      Metadata     `json:"metadata"`
	Unmapped      Unmapped     `json:"unmapped"`
}

// Severity is OCSF's severity_id. The zero value is taken as Informational.
type Severity uint8

// The severities.
const (
	Informational Severity = iota + 1
	Low
	Medium
	High
	Critical
	Fatal
)

// Actor is who acted.
type Actor struct {
	Process Process `json:"process"`
}

// Process is a running program. Pid is never 0 in what the journal writes about a real process.
type Process struct {
	PID    int32    `json:"pid"`
	UID    string   `json:"uid,omitempty"` // event.Process.Token in decimal
	Name   string   `json:"name,omitempty"`
	File   *File    `json:"file,omitempty"`
	User   *User    `json:"user,omitempty"`
	Parent *Process `json:"parent_process,omitempty"`
}

// User is a numeric user id in decimal; names are not resolved.
type User struct {
	UID string `json:"uid"`
}

// File is a file or an entry of a folder. Name and path are hints for people.
type File struct {
	Name         string `json:"name"`
	Path         string `json:"path,omitempty"`
	ParentFolder string `json:"parent_folder,omitempty"`
	TypeID       int    `json:"type_id"`
	Size         int64  `json:"size,omitempty"`
	ModifiedTime int64  `json:"modified_time,omitempty"` // milliseconds since 1970
	Owner        *User  `json:"owner,omitempty"`
	Hashes       []Hash `json:"hashes,omitempty"`
}

// Hash is OCSF's fingerprint.
type Hash struct {
	AlgorithmID int    `json:"algorithm_id"` // 3: SHA-256
	Algorithm   string `json:"algorithm"`
	Value       string `json:"value"` // lower-case hex
}

// sha256ID is OCSF's number of SHA-256.
const sha256ID = 3

// FindingInfo names a detection.
type FindingInfo struct {
	UID      string    `json:"uid"` // the event id
	Title    string    `json:"title"`
	Types    []string  `json:"types"`
	Analytic *Analytic `json:"analytic,omitempty"`
}

// Analytic is what detected: the provider's rule.
type Analytic struct {
	TypeID   int    `json:"type_id"` // 1 rule
	Name     string `json:"name,omitempty"`
	Category string `json:"category,omitempty"` // the provider
	Version  string `json:"version,omitempty"`  // the content version that answered
}

// Evidence is what a finding rests on.
type Evidence struct {
	Actor   *Actor   `json:"actor,omitempty"`
	File    *File    `json:"file,omitempty"`
	Process *Process `json:"process,omitempty"`
}

// Device is the host. The kind of host is not known, so TypeID stays 0.
type Device struct {
	TypeID   int    `json:"type_id"`
	Hostname string `json:"hostname,omitempty"`
}

// Product is a piece of software: Keepout as the reporter, Keepout or a provider as the subject of a note.
type Product struct {
	Name       string `json:"name"`
	VendorName string `json:"vendor_name,omitempty"`
	Version    string `json:"version,omitempty"`
}

// Metadata says what reported the object and how it is found again.
type Metadata struct {
	Version        string   `json:"version"` // SchemaVersion
	Product        Product  `json:"product"`
	Profiles       []string `json:"profiles,omitempty"`
	LogName        string   `json:"log_name"`
	UID            string   `json:"uid,omitempty"`
	CorrelationUID string   `json:"correlation_uid,omitempty"` // the event id, on an event and on its finding
	EventCode      string   `json:"event_code,omitempty"`      // a note's code
	Sequence       uint64   `json:"sequence,omitempty"`        // the line's number; absent outside the journal
}

// Unmapped holds what OCSF has no place for.
type Unmapped struct {
	Keepout Keepout `json:"keepout"`
}

// Keepout is our own part of an object. 64-bit numbers that may exceed 2^53 are strings, because many JSON
// readers keep numbers as floating point.
type Keepout struct {
	EventID   string    `json:"event_id,omitempty"` // lower-case hex
	Event     string    `json:"event,omitempty"`    // event.Type in words
	TimeNS    int64     `json:"time_ns,omitempty,string"`
	Outcome   string    `json:"outcome,omitempty"`
	Allowed   bool      `json:"allowed,omitempty"`
	Reason    string    `json:"reason,omitempty"`
	DecidedBy string    `json:"decided_by,omitempty"`
	Rule      string    `json:"rule,omitempty"`
	Mode      string    `json:"mode,omitempty"`
	LatencyUS int64     `json:"latency_us,omitempty"`
	Shared    uint32    `json:"shared,omitempty"`
	Ballots   []Ballot  `json:"ballots,omitempty"`
	Selftest  bool      `json:"selftest,omitempty"` // a canary of "keepout doctor" that an engine recognised
	GID       uint32    `json:"gid,omitempty"`
	Version   *Version  `json:"file_version,omitempty"`
	Raw       *Raw      `json:"raw,omitempty"`
	Note      *NoteBody `json:"note,omitempty"`
	Seq       uint64    `json:"seq,omitempty"`  // absent outside the journal
	Prev      string    `json:"prev,omitempty"` // hex SHA-256 of the line before, without its newline
}

// Ballot is one provider's part in a verdict.
type Ballot struct {
	Provider   string `json:"provider"`
	Mode       string `json:"mode,omitempty"`
	Action     string `json:"action"`
	Confidence uint8  `json:"confidence,omitempty"`
	Rule       string `json:"rule,omitempty"`
	Content    string `json:"content,omitempty"`
	Reason     string `json:"reason,omitempty"`
	LatencyUS  int64  `json:"latency_us,omitempty"`
	Counted    bool   `json:"counted"`
}

// Version identifies the file, see event.Version; the handle is base64.
type Version struct {
	Dev     uint64 `json:"dev,string"`
	Ino     uint64 `json:"ino,string"`
	Handle  []byte `json:"handle,omitempty"`
	Size    int64  `json:"size"`
	MtimeNS int64  `json:"mtime_ns,string"`
	CtimeNS int64  `json:"ctime_ns,string"`
	Mode    uint32 `json:"mode"`
	UID     uint32 `json:"uid"`
}

// Raw holds, in base64, the exact bytes of names that are not valid UTF-8: JSON cannot carry them, so that
// elsewhere in the object each bad byte is replaced by U+FFFD.
type Raw struct {
	Path    []byte `json:"path,omitempty"`
	Name    []byte `json:"name,omitempty"`
	NewDir  []byte `json:"new_dir,omitempty"`
	NewName []byte `json:"new_name,omitempty"`
	Comm    []byte `json:"comm,omitempty"`
}

// NoteBody is our part of a note.
type NoteBody struct {
	Title    string `json:"title"`
	Provider string `json:"provider,omitempty"`
	Detail   string `json:"detail,omitempty"`
}
