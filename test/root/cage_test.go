package root

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/sandbox"
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
		"NSpid": fmt.Sprintf("%d\t1", pid), "Umask": "0077",
	} {
		got := regexp.MustCompile(`(?m)^` + key + `:[ \t]*(.*?)[ \t]*$`).FindSubmatch(status)
		if len(got) < 2 || string(got[1]) != want {
			t.Errorf("%s: %q, want %q", key, got, want)
		}
	}
	if u := provider(t, h.Status(), "subject").UID; !sandbox.IsProvider(u) {
		t.Errorf("user %d is not in the range of providers", u)
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
