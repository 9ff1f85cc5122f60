//go:build linux

package bootguard

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/keepout-security/keepout/internal/boot"
	"github.com/keepout-security/keepout/internal/crash"
	"github.com/keepout-security/keepout/internal/durable"
	"github.com/keepout-security/keepout/internal/recovery/esp"
)

// recovered ends the story of the newest failure: a good boot followed. What the recovery environment did stays in it.
func (g *Guard) recovered() error {
	dir := g.dir.Join(esp.Diag)
	records, err := crash.List(os.DirFS(dir))
	r, found := crash.Recent(records, g.Now())
	if !found || r.Outcome != nil && r.Outcome.Recovered {
		return err
	}
	name := r.FileName() // before anything in it changes
	out := crash.Outcome{}
	if r.Outcome != nil {
		out = *r.Outcome
	}
	out.Recovered, out.Time = true, g.Now().UTC().Truncate(time.Second)
	out.Action = strings.TrimPrefix(out.Action, "Next start: ")
	r.Outcome = &out
	data, err := crash.Encode(&r)
	if err != nil {
		return err
	}
	return durable.WriteFileOn(esp.Disk(), filepath.Join(dir, name), data, 0o600)
}

// told is what status says for crash.NoticeFor about the newest failure, or nil. Damaged records are told of nowhere
// but in keepout crash list.
func (g *Guard) told() *boot.Told {
	records, _ := crash.List(os.DirFS(g.dir.Join(esp.Diag)))
	p, found := crash.Problem(records, g.Now())
	if !found {
		return nil
	}
	r, _ := crash.Recent(records, g.Now())
	until := r.Time.Add(crash.NoticeFor)
	if until.Before(g.Now()) {
		until = g.Now().Add(crash.NoticeFor) // the clock of the recovery environment was not set
	}
	return &boot.Told{Code: p.Code, Title: p.Title, Fix: p.Fix, Provider: p.Provider, Until: until}
}

// goodStory ends the story and tells it. That it cannot be written changes nothing about the boot.
func (g *Guard) goodStory(in *boot.Instruction) {
	if err := g.recovered(); err != nil {
		g.say(errors.New("the story of the last failure is not brought to its end: " + err.Error()))
	}
	in.Told = g.told()
}
