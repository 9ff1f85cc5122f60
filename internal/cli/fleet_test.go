package cli

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keepout-security/keepout/internal/fleet"
	"github.com/keepout-security/keepout/internal/fleet/client"
	"github.com/keepout-security/keepout/internal/fleet/fleetpb"
)

// fleetOf runs a control plane with one host, and returns the file to log in with.
func fleetOf(t *testing.T) (login string) {
	t.Helper()
	s, err := fleet.New(t.Context(), fleet.Config{Listen: "127.0.0.1:0", StateDir: filepath.Join(t.TempDir(), "state")})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	out, errs, code := typed(t, "fleet", "enroll", "--login", s.AdminFile(), "--label", "customer=acme")
	if code != exitOK {
		t.Fatalf("%d %s", code, errs)
	}
	id, err := client.Enrol(t.Context(), s.URL(), strings.TrimSpace(out), client.About{Hostname: "one"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	h, err := client.NewHost(id)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	_, err = h.CheckIn(t.Context(), &fleetpb.CheckInRequest{Installed: []*fleetpb.Installed{{
		Provider: "acme", Channel: fleetpb.Channel_CHANNEL_CONTENT, Digest: "sha256:" + strings.Repeat("a", 64),
		Slot: "active",
	}}})
	if err != nil {
		t.Fatal(err)
	}
	return s.AdminFile()
}

// TestFleetCommands types what a person would, and reads what a program would.
func TestFleetCommands(t *testing.T) {
	t.Parallel()
	login := fleetOf(t)
	flags := []string{
		"--name", "sigs", "--provider", "acme", "--digest", "sha256:" + strings.Repeat("b", 64), "--counter", "2",
	}
	for _, c := range []struct {
		line string
		more []string
		code int
		says string
	}{
		{line: "fleet status", says: "hosts active"},
		{line: "fleet hosts", says: "acme content aaaaaaaaaaaa"},
		{line: "fleet token create --person ann --role operator", says: "koa1."},
		{line: "fleet token create --person ann --role king", code: exitFailure, says: "KO-2208"},
		{line: "fleet token list", says: "ann"},
		{line: "fleet audit list", says: "enrol-token.create"},
		{line: "fleet audit verify", says: "unbroken"},
		{line: "fleet buckets", says: "SIGNATURE"},
		{line: "fleet beacons", says: "HOST"},
		{line: "fleet quarantine h-none --reason x", code: exitFailure, says: "KO-2209"},
		{line: "fleet quarantine h-none", code: exitUsage, says: "--reason"},
		{line: "rollout plan", more: flags, says: "for 1 hosts, schedule normal"},
		{line: "rollout create --emergency", more: flags, code: exitUsage, says: "an emergency needs a reason"},
		{line: "rollout create --emergency --reason now", more: flags, says: "waits for another person"},
		{line: "rollout create", more: flags, code: exitFailure, says: "KO-2212"},
		{line: "rollout approve sigs --reason again", code: exitDenied, says: "KO-2211"},
		{line: "rollout status", says: "draft"},
		{line: "rollout status sigs", says: "control"},
		{line: "rollout explain sigs", says: "1 of 2 people want it"},
		{line: "rollout pause sigs --reason x", code: exitFailure, says: "KO-2210"},
		{line: "rollout halt sigs --reason bad", says: "halted"},
		{line: "rollout resume sigs --reason x", code: exitFailure, says: "KO-2210"},
	} {
		args := append(strings.Fields(c.line), append(c.more, "--login", login)...)
		out, errs, code := typed(t, args...)
		if code != c.code || !strings.Contains(out+errs, c.says) {
			t.Errorf("%s: code %d, want %d; wanted %q in\n%s%s", c.line, code, c.code, c.says, out, errs)
		}
	}
	for _, line := range []string{
		"fleet hosts", "fleet status", "rollout status", "rollout status sigs", "fleet audit list",
	} {
		out, errs, code := typed(t, append(strings.Fields(line), "-o", "json", "--login", login)...)
		if code != exitOK || !json.Valid([]byte(out)) {
			t.Errorf("%s as JSON: %d %s%s", line, code, out, errs)
		}
	}
	if _, errs, code := typed(t, "fleet", "hosts", "--login", "none.json"); code != exitFailure ||
		!strings.Contains(errs, "KO-2215") {
		t.Errorf("no login: %d %s", code, errs)
	}
}

// TestFleetUnreachable: exit code 4 and a code of its own.
func TestFleetUnreachable(t *testing.T) {
	t.Parallel()
	l, err := client.LoadLogin(fleetOf(t))
	if err != nil {
		t.Fatal(err)
	}
	l.Server = "https://127.0.0.1:1"
	file := filepath.Join(t.TempDir(), "login.json")
	if err := os.WriteFile(file, l.Text(), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, errs, code := typed(t, "fleet", "hosts", "--login", file); code != exitUnreachable ||
		!strings.Contains(errs, "KO-2216") {
		t.Errorf("%d %s", code, errs)
	}
}

// TestHoldFile: the holds of a file are set as the command would, once; what changes is changed, what is not named
// stays unless it is pruned, and what is wrong is said with its line and column before anything is done.
func TestHoldFile(t *testing.T) {
	t.Parallel()
	login := fleetOf(t)
	file := filepath.Join(t.TempDir(), "fleet.yaml")
	entry := func(name, more string) string {
		return "  - name: " + name + "\n    labels: {customer: acme}\n    reason: so\n    " + more + "\n"
	}
	const freeze = `freezes: [{from: "2026-12-20T00:00:00Z", to: "2027-01-04T00:00:00Z", reason: books}]`
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct{ name, text, says string }{
		{"unknown key", "holds:\n" + entry("a", "pause: true"), ":5:5: KO-2217: unknown key"},
		{"bad time", "holds:\n" + entry("a", `freezes: [{from: "x", to: "y"}]`), ":5:22: KO-2217: freezes[0].from"},
		{"holds nothing", "holds:\n" + entry("a", "previous: false"), "KO-2217: paused: it holds nothing"},
		{"for nobody", "holds:\n  - {name: a, paused: true, reason: so}\n", ":2:5: KO-2217: labels: say which hosts"},
		{"bad name", "holds:\n" + entry("A_b", "paused: true"), ":2:11: KO-2217: name:"},
		{
			"one name twice", "holds:\n" + entry("a", "paused: true") + entry("a", "previous: true"),
			":6:11: KO-2217: two holds have this name",
		},
		{
			"a rollout is wrong", "holds:\n" + entry("a", "paused: true") + "rollouts:\n  - {name: r}\n",
			":7:5: KO-2217: provider",
		},
	} {
		write(c.text)
		out, errs, code := typed(t, "fleet", "apply", "-f", file, "--login", login)
		if code != exitFailure || out != "" || !strings.Contains(errs, c.says) {
			t.Errorf("%s: %d %s%s", c.name, code, out, errs)
		}
	}
	if out, _, _ := typed(t, "fleet", "hold", "list", "--login", login); strings.Contains(out, "acme") {
		t.Errorf("a wrong file set a hold:\n%s", out)
	}
	two := "holds:\n" + entry("a", "paused: true") + entry("b", freeze)
	other := "holds:\n" + entry("b", strings.ReplaceAll(freeze, "2026-12-20T00:00:00Z", "2026-12-20T01:00:00+01:00"))
	for i, c := range []struct{ text, verb, flag, acts string }{
		{two, "plan", "--prune", "create create"},
		{two, "apply", "--prune", "created created"},
		{two, "apply", "--prune", "unchanged unchanged"},
		{two, "plan", "--prune", "unchanged unchanged"},
		{"holds:\n" + entry("a", "previous: true"), "plan", "--prune=false", "change unchanged"},
		{"holds:\n" + entry("a", "previous: true"), "apply", "--prune=false", "changed unchanged"},
		{other, "plan", "--prune", "unchanged remove"},
		{"rollouts: []\n", "apply", "--prune", ""},
		{other, "apply", "--prune", "unchanged removed"},
		{"holds: []\n", "apply", "--prune", "removed"},
		{"holds: []\n", "plan", "--prune", ""},
	} {
		write(c.text)
		out, errs, code := typed(t, "fleet", c.verb, "-f", file, c.flag, "--login", login, "-o", "json")
		var got struct{ Steps []step }
		err := json.Unmarshal([]byte(out), &got)
		var acts []string
		for _, s := range got.Steps {
			acts = append(acts, s.Act)
		}
		if err != nil || code != exitOK || strings.Join(acts, " ") != c.acts {
			t.Errorf("%d: %s: %d %s%s, want %s", i, c.verb, code, out, errs, c.acts)
		}
	}
}

// TestRolloutFile: a file is right as a whole or nothing is done, and applying it twice does it once.
func TestRolloutFile(t *testing.T) {
	t.Parallel()
	login := fleetOf(t)
	file := filepath.Join(t.TempDir(), "rollouts.yaml")
	entry := func(name, c string) string {
		return "  - name: " + name + "\n    provider: acme\n    channel: content\n    counter: 2\n    digest: sha256:" +
			strings.Repeat(c, 64) + "\n"
	}
	for _, c := range []struct{ name, text, says string }{
		{"unknown key", "rollouts:\n" + entry("a", "b") + "    nam: x\n", ":7:5: KO-2217: unknown key"},
		{"bad value", "rollouts:\n" + entry("a", "b") + entry("b", "Z"), ":11:13: KO-2217: digest:"},
		{"one name twice", "rollouts:\n" + entry("a", "b") + entry("a", "c"), ":7:11: KO-2217: two rollouts have this name"},
		{"no YAML", "rollouts: [", "KO-2217"},
	} {
		if err := os.WriteFile(file, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		out, errs, code := typed(t, "fleet", "apply", "-f", file, "--login", login)
		if code != exitFailure || out != "" || !strings.Contains(errs, c.says) {
			t.Errorf("%s: %d %s%s", c.name, code, out, errs)
		}
	}
	if err := os.WriteFile(file, []byte("rollouts:\n"+entry("a", "b")), 0o600); err != nil {
		t.Fatal(err)
	}
	for i, want := range []struct{ verb, act string }{
		{"plan", "create"}, {"apply", "created"}, {"apply", "unchanged"}, {"plan", "unchanged"},
	} {
		out, errs, code := typed(t, "fleet", want.verb, "-f", file, "--login", login, "-o", "json")
		var got struct{ Steps []step }
		if err := json.Unmarshal([]byte(out), &got); err != nil || code != exitOK || len(got.Steps) != 1 ||
			got.Steps[0].Act != want.act {
			t.Errorf("%d: %s: %d %s%s", i, want.verb, code, out, errs)
		}
	}
	if err := os.WriteFile(file, []byte("rollouts:\n"+entry("a", "c")), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, errs, code := typed(t, "fleet", "plan", "-f", file, "--login", login); code != exitFailure ||
		!strings.Contains(errs, "another release") {
		t.Errorf("another release under an old name: %d %s", code, errs)
	}
}
