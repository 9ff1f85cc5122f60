package boot_test

import (
	"strings"
	"testing"
	"time"

	"github.com/keepout-security/keepout/internal/boot"
)

func TestJudge(t *testing.T) {
	t.Parallel()
	good := func() boot.Facts {
		return boot.Facts{
			Uptime: 2 * time.Minute, Target: true, Core: true,
			Open: boot.Canary{Tried: true, Seen: true}, Exec: boot.Canary{Tried: true, Seen: true},
			Providers: []boot.ProviderFact{{ID: "a", Required: true, Connected: true, Calm: time.Hour}},
		}
	}
	for name, c := range map[string]struct {
		change func(f *boot.Facts)
		want   string // what keeps it from being good
	}{
		"all is well":        {func(*boot.Facts) {}, ""},
		"too early":          {func(f *boot.Facts) { f.Uptime = 89 * time.Second }, "up for 1m29s"},
		"target not reached": {func(f *boot.Facts) { f.Target = false }, "not come up"},
		"no core":            {func(f *boot.Facts) { f.Core = false }, "does not answer"},
		"open not seen":      {func(f *boot.Facts) { f.Open.Seen = false }, "its own open"},
		"exec too slow":      {func(f *boot.Facts) { f.Exec.Took = 11 * time.Second }, "its own exec"},
		"nothing is watched": {func(f *boot.Facts) { f.Open, f.Exec = boot.Canary{}, boot.Canary{} }, ""},
		"missing":            {func(f *boot.Facts) { f.Providers[0].Connected = false }, "a does not vote"},
		"missing, not required": {func(f *boot.Facts) {
			f.Providers[0].Connected, f.Providers[0].Required = false, false
		}, ""},
		"degraded": {func(f *boot.Facts) {
			f.Providers[0].Connected, f.Providers[0].Degraded = false, true
		}, ""},
		"crashed":      {func(f *boot.Facts) { f.Providers[0].Calm = 59 * time.Second }, "a crashed"},
		"no providers": {func(f *boot.Facts) { f.Providers = nil }, ""},
	} {
		f := good()
		c.change(&f)
		missing := boot.Judge(f, boot.DefaultNumbers())
		if c.want == "" && len(missing) > 0 || c.want != "" && (len(missing) != 1 || !strings.Contains(missing[0], c.want)) {
			t.Errorf("%s: %q", name, missing)
		}
	}
}
