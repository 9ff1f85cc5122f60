package rescue

import (
	"context"
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

// keepStory leaves the story of this visit when it ends or stands at the menu: of a rehearsal, which is no failure, a
// report; of any other a record for "keepout crash show". It is written beside whoever calls, one after the other, and
// v.kept says when that is done.
func (v *Visit) keepStory(record *crash.Record, s *plan.State) {
	ended := s.Phase == plan.Leaving || s.Phase == plan.Menu && !s.Test
	if v.m.Dir == nil || v.recorded == s.Phase || !ended {
		return
	}
	v.recorded = s.Phase
	var write func() error
	if s.Test {
		report := v.rehearsed(record, s)
		write = func() error { return rehearsal.Keep(v.m.Dir, report) }
	} else {
		story := *record
		story.Outcome = outcome(v, s)
		write = func() error { return v.writeRecord(&story) }
	}
	before, done := v.kept, make(chan struct{})
	v.kept = done
	go func() {
		defer close(done)
		if before != nil {
			<-before
		}
		release, err := v.hold(context.Background()) // only the end of the machine ends this
		if err == nil {
			defer release()
			err = write()
		}
		if err != nil {
			v.m.Log("the story of this visit is not kept: %v", err)
		}
	}()
}

// writeRecord writes a record where those of other failures are, and removes the oldest.
func (v *Visit) writeRecord(record *crash.Record) error {
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
	return err
}

// rehearsed is what a rehearsal found.
func (v *Visit) rehearsed(record *crash.Record, s *plan.State) *rehearsal.Report {
	r := &rehearsal.Report{
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
	return r
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
