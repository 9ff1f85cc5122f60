package control

import (
	"time"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/docket"
	"github.com/keepout-security/keepout/internal/health"
	"github.com/keepout-security/keepout/internal/journal"
	"github.com/keepout-security/keepout/internal/roster"
	"github.com/keepout-security/keepout/internal/sensor"
	"github.com/keepout-security/keepout/internal/sensor/lease"
)

// Request is one line from a client. Do says what; the other fields belong to some verbs.
type Request struct {
	Do       string     `json:"do"` // status, events, explain, mode, allow, provider, version, logs, reload, checkup
	Mode     event.Mode `json:"mode,omitempty"`
	Provider string     `json:"provider,omitempty"`
	Enable   bool       `json:"enable,omitempty"`
	Action   string     `json:"action,omitempty"` // version: rollback, promote or allow
	Part     string     `json:"part,omitempty"`   // version, rollback: engine or content; "" is what changed last
	Query    string     `json:"query,omitempty"`  // explain: event id or path
	SHA256   string     `json:"sha256,omitempty"`
	Seconds  int64      `json:"seconds,omitempty"` // allow: for how long; events: since how long ago
	Reason   string     `json:"reason,omitempty"`
	Follow   bool       `json:"follow,omitempty"`
	Denied   bool       `json:"denied,omitempty"` // events: only what was or would have been denied
	Limit    int        `json:"limit,omitempty"`  // events, logs: at most the last so many
	Name     string     `json:"name,omitempty"`   // events: only files whose name begins with this
}

// Reply is one line to a client. Events are sent as a reply each; the last reply of a request has End.
type Reply struct {
	Error   *health.Problem `json:"error,omitempty"`
	Status  *Status         `json:"status,omitempty"`
	Checkup *Checkup        `json:"checkup,omitempty"`
	Record  *event.Record   `json:"record,omitempty"`
	Log     string          `json:"log,omitempty"`  // logs: one line that a provider wrote to standard error
	Lost    uint64          `json:"lost,omitempty"` // records so far that a follower was too slow for
	End     bool            `json:"end,omitempty"`
}

// Status is the state of the platform. Field names are stable.
type Status struct {
	Version   string              `json:"version"`
	Mode      event.Mode          `json:"mode"`
	Tier      string              `json:"tier"` // B: fanotify
	PID       int                 `json:"pid"`  // of the core
	Guard     GuardStatus         `json:"guard"`
	Since     time.Time           `json:"since"`
	Config    string              `json:"config"`
	Problems  []health.Problem    `json:"problems"`
	Providers []roster.Status     `json:"providers"`
	Verdicts  docket.Totals       `json:"verdicts"`
	Sensor    sensor.Counters     `json:"sensor"`
	Memory    lease.Counters      `json:"kernel_memory"` // objects whose opens the kernel allows by itself
	Watching  []sensor.Filesystem `json:"watching"`
	Journal   JournalStatus       `json:"journal"`
	Allowed   []Allowance         `json:"allowances"`
}

// GuardStatus says who answers when the core cannot, and when it last had to.
type GuardStatus struct {
	PID   int    `json:"pid"`
	Cores uint32 `json:"cores"` // started since the guard; the first one counts
	Gap   *Gap   `json:"gap,omitempty"`
}

// Gap is a time in which no engine was asked, because there was no core that could.
type Gap struct {
	Cause    string    `json:"cause"` // exited, killed, stalled or stopped
	LengthMS int64     `json:"length_ms"`
	Decided  uint64    `json:"decided"` // events that the guard allowed
	Until    time.Time `json:"until"`
}

// JournalStatus says how the trail on disk is doing.
type JournalStatus struct {
	Lost uint64       `json:"lost"` // records that could not be kept
	Head journal.Head `json:"head"`
}

// Allowance is an administrator's exception for one content.
type Allowance struct {
	SHA256 string    `json:"sha256"`
	Until  time.Time `json:"until"`
	Reason string    `json:"reason"`
	Used   uint64    `json:"used"` // denials that it lifted since the start
}

// Limits of the admin socket.
const (
	maxRequest     = 64 << 10         // bytes in one request
	maxConnections = 32               // further ones are closed at once
	writeTimeout   = 5 * time.Second  // for one reply
	readTimeout    = 30 * time.Second // for one request
)
