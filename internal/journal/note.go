package journal

import "time"

// Note is an entry of the change journal: something happened to the platform itself.
type Note struct {
	Time     time.Time // zero: when Note is called
	Code     string    // stable, for machines: "provider.crashed", "config.reloaded", "core.gap", "KO-0123"
	Title    string    // one short sentence for people
	Severity Severity
	Provider string // the provider concerned; empty: the platform
	Detail   string // everything else; cut after 4 KiB
}

// The codes of the notes that the journal writes itself.
const (
	CodeRecovered  = "journal.recovered"   // a torn last line was cut off
	CodeLost       = "journal.lost"        // records could not be kept
	CodeSyncFailed = "journal.sync-failed" // fsync(2) failed: what was written may not survive a power cut
)

// OCSF returns the note as an Application Lifecycle object.
func (n *Note) OCSF(origin Origin) Object {
	title, code := clip(n.Title, maxWord), clip(n.Code, maxWord)
	app := &Product{Name: productName, VendorName: productName, Version: origin.Version}
	if n.Provider != "" {
		app = &Product{Name: clip(n.Provider, maxWord)}
	}
	return Object{
		ClassUID: classLifecycle, ClassName: "Application Lifecycle", CategoryUID: classLifecycle / 1000,
		ActivityID: activityOther, ActivityName: code, TypeUID: classLifecycle*100 + activityOther,
		Time: milliseconds(n.Time), SeverityID: max(n.Severity, Informational), StatusID: statusSuccess,
		Message: title, App: app,
		Device: Device{Hostname: origin.Host},
		Metadata: Metadata{
			Version: SchemaVersion, Product: Product{productName, productName, origin.Version},
			Profiles: profiles[1:], LogName: logName, EventCode: code,
		},
		Unmapped: Unmapped{Keepout{
			TimeNS: nanoseconds(n.Time),
			Note: &NoteBody{
				Title: title, Provider: clip(n.Provider, maxWord), Detail: clip(n.Detail, maxDetail),
			},
		}},
	}
}
