package config

import (
	"path/filepath"
	"time"
)

// Updates says how a new engine or content comes into force.
type Updates struct {
	// Trial is how long a candidate runs in audit beside the active version at least; 0 to 24h.
	Trial Duration `yaml:"trial"`
	// TrialIdle is how long is enough where there are too few events to compare; trial to 168h.
	TrialIdle Duration `yaml:"trial_idle"`
	// Samples is how many events both must have judged; 0 to 1000000.
	Samples int `yaml:"samples"`
	// Settle is the time between two changes of one provider, so that trouble has one suspect; 0 to 24h.
	Settle Duration `yaml:"settle"`
	// Soak is how long a version must serve without trouble to be the one that a rollback goes to; 1s to 720h.
	Soak Duration `yaml:"soak"`
	// LoadTime is how long the trial load in a throw-away cage may take, 1s to 1h.
	LoadTime Duration `yaml:"load_time"`
	// Schema: check content against the schema in the manifest before any engine loads it.
	Schema bool `yaml:"schema"`
	// Load: let the engine load a new version in a throw-away cage before it runs on this host's events.
	Load bool `yaml:"load"`
	// Trust is the operator's root file, an absolute path. With it, providers are kept up to date by signed packages,
	// and what content: names is only what they begin with; without it, no package is taken.
	Trust string `yaml:"trust"`
	// Staging is the folder that keepout-fetch writes, an absolute path; default: staging in the state directory.
	Staging string `yaml:"staging"`
	// ControlPlane: a package is used only with a grant of the operator's director. false is for hosts that are
	// brought their packages in a folder, without any server.
	ControlPlane bool `yaml:"control_plane"`
}

// defaultUpdates are the documented numbers; those that are not configurable are in internal/rollback.
func defaultUpdates() Updates {
	return Updates{
		Trial: Duration(time.Minute), TrialIdle: Duration(30 * time.Minute), Samples: 1000,
		Settle: Duration(10 * time.Minute), Soak: Duration(24 * time.Hour), LoadTime: Duration(5 * time.Minute),
		Schema: true, Load: true, ControlPlane: true,
	}
}

func (u *Updates) check(bad refusal) {
	within := func(key string, v, low, high Duration) {
		if v < low || v > high {
			bad("$.updates."+key, "choose "+time.Duration(low).String()+" to "+time.Duration(high).String(),
				"%s %v is out of range", key, time.Duration(v))
		}
	}
	const hour = Duration(time.Hour)
	within("trial", u.Trial, 0, 24*hour)
	within("trial_idle", u.TrialIdle, u.Trial, 168*hour)
	within("settle", u.Settle, 0, 24*hour)
	within("soak", u.Soak, Duration(time.Second), 720*hour)
	within("load_time", u.LoadTime, Duration(time.Second), hour)
	for _, p := range []struct{ key, v string }{{"trust", u.Trust}, {"staging", u.Staging}} {
		if p.v != "" && !filepath.IsAbs(p.v) {
			bad("$.updates."+p.key, "write an absolute path", "%s %q is relative", p.key, p.v)
		}
	}
	if u.Samples < 0 || u.Samples > 1_000_000 {
		bad("$.updates.samples", "choose 0 to 1000000", "samples %d is out of range", u.Samples)
	}
}
