package cli

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/keepout-security/keepout/internal/doctor"
	"github.com/keepout-security/keepout/internal/health"
)

func cannedReport() *doctor.Report {
	return &doctor.Report{
		Version: "1.2.3", TookMS: 1234, Reachable: true, Counts: doctor.Counts{OK: 2, Info: 1, Warnings: 1, Errors: 1},
		Findings: []doctor.Finding{
			{Section: doctor.Core, Severity: doctor.OK, Title: "the core answers: version 1.2.3, mode enforce, process 4711"},
			{
				Section: doctor.Proof, Severity: health.Failure, Code: "KO-1801", Provider: "yara",
				Title: "yara runs, but did not recognise its canary: it voted ALLOW: open and exec in /srv, open in " +
					"/home/with/a/rather/long/name",
				Fix: "keepout explain /srv/.keepout-selftest-0123456789ab-4; reinstall the provider",
			},
			{
				Section: doctor.Proof, Severity: doctor.OK, Provider: "hashlist",
				Title: "hashlist denied its canary: open and exec in /srv (210µs)",
			},
			{
				Section: doctor.Kernel, Severity: health.Warning, Code: "KO-1812", Title: "no Landlock: \x1b[31mENOSYS",
				Fix: "add landlock to the lsm= list of the kernel's command line; cages are weaker without it",
			},
			{Section: doctor.Kernel, Severity: doctor.OK, Title: "Linux 6.18"},
			{Section: doctor.Kernel, Severity: doctor.OK, Title: "seccomp filters"},
			{Section: doctor.Host, Severity: health.Info, Title: "disk: not checked: only the core knows where it writes"},
		},
	}
}

func TestDoctorReport(t *testing.T) {
	t.Parallel()
	for name, a := range map[string]*app{
		"doctor-100.txt": {width: 100}, "doctor-80.txt": {width: 80}, "doctor-pipe.txt": {ascii: true},
	} {
		var out bytes.Buffer
		a.out = &out
		a.printReport(cannedReport())
		plain(t, out.String())
		golden(t, name, out.String())
		for line := range strings.Lines(out.String()) {
			if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); a.width > 0 && n > a.width {
				t.Errorf("%s: %d columns: %s", name, n, line)
			}
		}
		if a.ascii && strings.ContainsFunc(out.String(), func(r rune) bool { return r > 0x7e }) {
			t.Errorf("%s is not ASCII: %s", name, out.String())
		}
	}
}

func TestDoctorSummary(t *testing.T) {
	t.Parallel()
	a := &app{}
	r := cannedReport()
	for _, c := range []struct {
		change func()
		want   string
	}{
		{func() {}, "✘ not protected as configured  5 checks in 1.2 s: 2 ok, 1 for information, 1 warning, 1 error"},
		{func() { r.Findings = r.Findings[2:] }, "✘ something is wrong  5 checks"},
		{func() { r.Counts.Errors = 0 }, "! degraded  4 checks"},
		{func() { r.Counts.Warnings = 0 }, "✔ protected as configured  3 checks"},
		{func() { r.Reachable, r.Counts.Errors = false, 1 }, "✘ not protected: the core does not answer  4 checks"},
	} {
		if c.change(); !strings.HasPrefix(a.summary(r), c.want) {
			t.Errorf("%q, want %q", a.summary(r), c.want)
		}
	}
}

// TestDoctorOfAnOlderCore: a core that cannot be examined is a warning, not a crash, and the exit code says so.
func TestDoctorOfAnOlderCore(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	code, out, errs := d.run(t, "doctor")
	if code != exitDegraded || errs != "" || !strings.Contains(out, "KO-1816 the core (1.2.3) cannot be examined") ||
		!strings.Contains(out, "KO-1601") {
		t.Errorf("code %d, %s%s", code, out, errs)
	}
	code, out, errs = d.run(t, "-o", "json", "doctor")
	var r doctor.Report
	if err := json.Unmarshal([]byte(out), &r); err != nil || code != exitDegraded || errs != "" || !r.Reachable ||
		r.Counts.Errors == 0 || len(r.Findings) < 10 {
		t.Errorf("code %d, %v: %s%s", code, err, out, errs)
	}
}

// TestErrorsJSON: with -o json, a refusal is one object on standard error and standard output is empty.
func TestErrorsJSON(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	code, out, errs := d.run(t, "-o", "json", "provider", "enable", "none")
	want := `{"errors":[{"code":"KO-2011","title":"no such provider","severity":"error","fix":"keepout provider list"}],` +
		`"exit":1}` + "\n"
	if code != exitFailure || out != "" || errs != want {
		t.Errorf("code %d, %q, %q", code, out, errs)
	}
}

func TestAgo(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		0: "just now", 5 * time.Second: "for 5 s", 90 * time.Second: "for 90 s", 5 * time.Minute: "for 5 min",
		5 * time.Hour: "for 5 h", 72 * time.Hour: "for 3 days",
	} {
		if got := ago(d); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
}
