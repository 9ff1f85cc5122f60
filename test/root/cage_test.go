package root

import (
	"crypto/md5"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/control"
	"github.com/keepout-security/keepout/internal/sandbox"
	"github.com/keepout-security/keepout/internal/supervisor"
	"github.com/keepout-security/keepout/internal/testenv"
	"github.com/keepout-security/keepout/test/testhost"
)

// TestConfinement looks at a running provider from outside.
func TestConfinement(t *testing.T) {
	need(t)
	confined := subject("subject", "", event.Enforce)
	confined.Extra = "limits: {memory: 200MiB, processes: 32, fds: 100}"
	h := testhost.Start(t, testhost.Options{Providers: []testhost.Provider{confined}})
	pid := provider(t, h.Status(), "subject").PID
	proc := fmt.Sprintf("/proc/%d", pid)

	status, err := os.ReadFile(filepath.Join(proc, "status"))
	must(t, err)
	uid := strconv.FormatUint(uint64(provider(t, h.Status(), "subject").UID), 10)
	ids := strings.Join([]string{uid, uid, uid, uid}, "\t")
	for key, want := range map[string]string{
		"NoNewPrivs": "1", "CapInh": "0000000000000000", "CapPrm": "0000000000000000", "CapEff": "0000000000000000",
		"CapBnd": "0000000000000000", "CapAmb": "0000000000000000", "Groups": "",
		"Uid": ids, "Gid": ids,
		"NSpid": fmt.Sprintf("%d\t1", pid), "Umask": "0077", "Seccomp": "2",
	} {
		got := regexp.MustCompile(`(?m)^` + key + `:[ \t]*(.*?)[ \t]*$`).FindSubmatch(status)
		if len(got) < 2 || string(got[1]) != want {
			t.Errorf("%s: %q, want %q", key, got, want)
		}
	}
	if u := provider(t, h.Status(), "subject").UID; !sandbox.IsProvider(u) {
		t.Errorf("user %d is not in the range of providers", u)
	}

	if c := provider(t, h.Status(), "subject").Confinement; c.Weak() {
		t.Errorf("the cage has holes: %+v", c)
	}
	for _, kind := range []string{"user", "mnt", "pid", "net", "ipc", "uts"} {
		ours, err := os.Readlink("/proc/self/ns/" + kind)
		must(t, err)
		theirs, err := os.Readlink(filepath.Join(proc, "ns", kind))
		must(t, err)
		if ours == theirs {
			t.Errorf("it shares the %s namespace", kind)
		}
	}
	limits, err := os.ReadFile(filepath.Join(proc, "limits"))
	must(t, err)
	for name, want := range map[string]string{
		"Max data size": "209715200", "Max processes": "32", "Max open files": "100", "Max core file size": "0",
	} {
		if !regexp.MustCompile(name + ` +` + want + ` +` + want + ` `).Match(limits) {
			t.Errorf("%s is not %s:\n%s", name, want, limits)
		}
	}

	environ, err := os.ReadFile(filepath.Join(proc, "environ"))
	must(t, err)
	for v := range strings.SplitSeq(strings.TrimRight(string(environ), "\x00"), "\x00") {
		name, _, _ := strings.Cut(v, "=")
		if !slices.Contains([]string{"PATH", "GOTRACEBACK", "HOME", "LANG", "TMPDIR"}, name) {
			t.Errorf("inherited %q", v)
		}
	}
	descriptors(t, proc)
}

// descriptors checks that a provider has nothing open but what it was given and what its runtime makes.
func descriptors(t testing.TB, proc string) {
	t.Helper()
	links, err := filepath.Glob(filepath.Join(proc, "fd", "*"))
	must(t, err)
	var inherited []string
	for _, link := range links {
		to, err := os.Readlink(link)
		must(t, err)
		if strings.HasPrefix(to, "anon_inode:[event") || strings.HasPrefix(to, "/sys/fs/cgroup/") {
			continue // Go's own: its poller, and the processors that its control group may use
		}
		inherited = append(inherited, filepath.Base(link))
	}
	slices.Sort(inherited)
	if want := []string{"0", "1", "2", "3", "4"}; !slices.Equal(inherited, want) {
		t.Errorf("open descriptors %v, want %v", inherited, want)
	}
}

// TestEnginesInTheCage: the shipped engines that need more than themselves, and a script, do their work in the cage.
func TestEnginesInTheCage(t *testing.T) {
	need(t, testenv.ClamAV, testenv.YARA, testenv.Python)
	const bad = "MALWARE in three engines"
	content := mountPoint(t)
	t.Cleanup(func() { _ = os.RemoveAll(content) })
	folder := func(name, file, text string) string {
		dir := filepath.Join(content, name)
		must(t, os.Mkdir(dir, 0o755))
		write(t, filepath.Join(dir, file), text, 0o644)
		return dir
	}
	h := testhost.Start(t, testhost.Options{Life: 3 * time.Minute, Providers: []testhost.Provider{
		{ID: "clamav", Source: "clamav", Content: folder("clamav", "x.hdb",
			fmt.Sprintf("%x:%d:Test.Bad\n", md5.Sum([]byte(bad)), len(bad)))},
		{ID: "yara", Source: "yara", Content: folder("yara", "x.yar",
			"rule Bad { strings: $m = \"MALWARE\" condition: $m }\n")},
		{ID: "python", Source: "python", Content: folder("python", "deny.txt", digest(bad)+" Test.Bad\n")},
	}})
	path := h.File("bad", bad)
	denied(t, open(path))
	allowed(t, open(h.File("good", goodText)))
	for _, p := range h.Status().Providers {
		if p.Confinement.Weak() {
			t.Errorf("%s: the cage has holes: %q", p.ID, p.Confinement.Missing())
		}
	}
	for _, id := range []string{"clamav", "yara", "python"} { // each by itself
		for _, other := range []string{"clamav", "yara", "python"} {
			must(t, h.Do(control.Request{Do: "provider", Provider: other, Enable: other == id}, func(control.Reply) {}))
		}
		h.Until(id+" votes alone", func() bool {
			for _, p := range h.Status().Providers {
				if running := p.State == supervisor.Running; running != (p.ID == id) {
					return false
				}
			}
			return true
		})
		alone := h.File("bad-"+id, bad)
		denied(t, open(alone))
		if v := h.Record(alone).Verdict; v.DecidedBy != id {
			t.Errorf("%s was denied by %q", alone, v.DecidedBy)
		}
	}
}

// TestProviderCannotSignal: a provider can end neither the daemon nor anything else on the host.
func TestProviderCannotSignal(t *testing.T) {
	need(t)
	h := testhost.Start(t, testhost.Options{Providers: []testhost.Provider{
		subject("attacks", "signal", event.Enforce), subject("other", "", event.Enforce),
	}})
	before := h.Status()
	path := h.File("target", fmt.Sprintf("FAULT %d", before.PID))
	denied(t, open(path))
	v := record(t, h, path, event.Denied)
	if want := "parent 0, one: no such process, all: no such process"; v.Rule != want {
		t.Errorf("it says %q, want %q", v.Rule, want)
	}
	after := h.Status()
	if after.PID != before.PID || provider(t, after, "other").PID != provider(t, before, "other").PID {
		t.Error("something was ended")
	}
}
