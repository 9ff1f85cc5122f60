package rescue

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/keepout-security/keepout/internal/crash"
	"github.com/keepout-security/keepout/internal/durable"
	"github.com/keepout-security/keepout/internal/recovery/esp"
	"github.com/keepout-security/keepout/internal/recovery/rehearsal"
	"github.com/keepout-security/keepout/internal/rescue/plan"
)

// keepRecord leaves the story of this visit for "keepout crash show", when it ends or stands at the menu. A rehearsal
// is no failure and leaves none.
func (v *Visit) keepRecord(record *crash.Record, s *plan.State) {
	if v.m.Dir == nil || s.Test || v.recorded == s.Phase || s.Phase != plan.Leaving && s.Phase != plan.Menu {
		return
	}
	v.recorded = s.Phase
	record.Outcome = outcome(v, s)
	dir := v.m.Dir.Join(esp.Diag)
	data, err := crash.Encode(record)
	if err == nil { // without diagnostics nobody has made it before
		err = os.MkdirAll(dir, 0o700)
	}
	if err == nil {
		err = durable.WriteFileOn(esp.Disk(), filepath.Join(dir, record.FileName()), data, 0o600)
		old, _ := crash.NotKept(os.DirFS(dir)) // what cannot be listed cannot be removed
		for _, name := range old {
			_ = os.Remove(filepath.Join(dir, name))
		}
	}
	if err != nil {
		v.m.Log("the story of this visit is not kept: %v", err)
	}
}

// keepRehearsal leaves what a rehearsal found, when it ends.
func (v *Visit) keepRehearsal(record *crash.Record, s *plan.State) {
	if v.m.Dir == nil || !s.Test || v.recorded == s.Phase || s.Phase != plan.Leaving {
		return
	}
	v.recorded = s.Phase
	r := rehearsal.Report{
		Time: v.m.Now().UTC().Truncate(time.Second), Kernel: v.config.Kernel, Built: v.config.Built, Fix: s.Remedy.ID,
		Trouble: s.Trouble, Screen: v.m.Drawn,
		Passed: s.Saved && (s.Facts.Alone || s.Remedy.ID != ""),
	}
	if r.Passed {
		r.Trouble = ""
	}
	if v.m.Uptime != nil {
		r.Whole = v.m.Uptime()
	}
	for _, step := range record.Steps {
		if step.Progress == crash.Done || step.Progress == crash.Failed {
			r.Steps = append(r.Steps, rehearsal.Step{
				Done: step.Progress == crash.Done, Text: step.Text, Detail: step.Detail,
			})
		}
	}
	if err := rehearsal.Keep(v.m.Dir, &r); err != nil {
		v.m.Log("the rehearsal's report is not kept: %v", err)
	}
}

// outcome is how the visit ends; that a good boot followed is for that boot to say.
func outcome(v *Visit, s *plan.State) *crash.Outcome {
	if s.Remedy.Source == "" {
		return nil
	}
	o := &crash.Outcome{Time: v.m.Now(), Action: "Next start: " + v.named(s.Remedy.String())}
	switch s.Remedy.Source {
	case plan.Server:
		o.By = fmt.Sprintf("the signed fix %s", s.Remedy.ID)
	case plan.Local:
		o.By = "the local rule"
	case plan.Person:
		o.By = "a person at the machine"
	case plan.Test:
	}
	return o
}
