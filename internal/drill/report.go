package drill

import "time"

// Report is what a run of drills found. Field names are stable; all moments are milliseconds since a drill's openers
// began.
type Report struct {
	Version string    `json:"version"`
	Live    string    `json:"live,omitempty"` // where, when it was on this host's daemon
	Began   time.Time `json:"began"`
	Seconds float64   `json:"seconds"`
	Passed  int       `json:"passed"`
	Failed  int       `json:"failed"`
	Drills  []Result  `json:"drills"`
}

// Result is what one drill found.
type Result struct {
	Name     string `json:"name"`
	Title    string `json:"title"`
	Provider string `json:"provider"` // the hostile one

	Explanation string `json:"explanation,omitempty"`

	Passed     bool        `json:"passed"`
	Error      string      `json:"error,omitempty"` // why the drill itself did not come to its end
	FaultMS    int64       `json:"fault_ms"`        // when the fault was committed
	LiftedMS   int64       `json:"lifted_ms"`       // when the drill stopped looking
	Host       Host        `json:"host"`
	Neighbours []Neighbour `json:"neighbours"`
	Usage      Usage       `json:"usage"`
	Checks     []Check     `json:"checks"`
	Timeline   []Moment    `json:"timeline"`
	States     []State     `json:"states"` // of the hostile provider
	Opens      []Bucket    `json:"opens"`
}

// Host is what the openers felt after the fault.
type Host struct {
	Opens         int     `json:"opens"`
	LongestMS     float64 `json:"longest_ms"`     // blocked open
	RuleMS        float64 `json:"rule_ms"`        // what the budget allows
	WronglyDenied int     `json:"wrongly_denied"` // opens of good files
	Missed        int     `json:"missed"`         // opens of bad files that succeeded
	UnprotectedMS float64 `json:"unprotected_ms"` // from the first of those to the next denial, added up
	Failed        int     `json:"failed"`         // opens with another error than the denial
	GoodOnly      bool    `json:"good_only"`      // no bad file was opened, so none can have been let through
}

// Neighbour is a good provider: what a vote of it takes, before and after the fault.
type Neighbour struct {
	ID       string  `json:"id"`
	BeforeUS int64   `json:"p99_before_us"`
	DuringUS int64   `json:"p99_during_us"`
	Ratio    float64 `json:"ratio"` // 0: one of them is not known
	Votes    int     `json:"votes"` // after the fault
}

// Usage is the most that the hostile provider took.
type Usage struct {
	MemoryMiB  int `json:"memory_mib"` // resident
	Processes  int `json:"processes"`  // and threads, of its user
	Files      int `json:"fds"`
	CPUPercent int `json:"cpu_percent"` // of one processor, on average after the fault
}

// Check is one thing that had to be seen.
type Check struct {
	What   string `json:"what"`
	Passed bool   `json:"passed"`
	Detail string `json:"detail,omitempty"` // what was seen
}

// Moment is one thing that happened. Lane is fault, host, platform or provider.
type Moment struct {
	AtMS int64  `json:"at_ms"`
	Lane string `json:"lane"`
	Text string `json:"text"`
}

// State is what the hostile provider was from a moment on.
type State struct {
	AtMS  int64  `json:"at_ms"`
	State string `json:"state"`
}

// Bucket sums up the opens that ended within bucketWidth.
type Bucket struct {
	AtMS      int64 `json:"at_ms"`
	Count     int   `json:"count"`
	LongestUS int64 `json:"longest_us"`
	MedianUS  int64 `json:"median_us"`
	Denied    int   `json:"denied,omitempty"` // good files
	Missed    int   `json:"missed,omitempty"` // bad files
}

// bucketWidth is fine enough to see a 50 ms budget in a drawing of ten seconds.
const bucketWidth = 50 * time.Millisecond
