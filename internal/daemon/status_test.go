package daemon

import (
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/arbiter"
	"github.com/keepout-security/keepout/internal/config"
	"github.com/keepout-security/keepout/internal/control"
	"github.com/keepout-security/keepout/internal/docket"
	"github.com/keepout-security/keepout/internal/health"
	"github.com/keepout-security/keepout/internal/roster"
	"github.com/keepout-security/keepout/internal/sandbox"
	"github.com/keepout-security/keepout/internal/sensor"
	"github.com/keepout-security/keepout/internal/supervisor"
)

func TestProblems(t *testing.T) {
	good := func() control.Status {
		return control.Status{
			Mode:      event.Enforce,
			Watching:  []sensor.Filesystem{{Path: "/srv", Kind: "local"}},
			Providers: []roster.Status{{ID: "a", Mode: event.Enforce, State: supervisor.Running}},
		}
	}
	tests := map[string]struct {
		change func(s *control.Status)
		err    error
		want   []string
	}{
		"healthy":         {change: func(*control.Status) {}},
		"monitor":         {change: func(s *control.Status) { s.Mode = event.Monitor }, want: []string{"KO-1501"}},
		"nothing watched": {change: func(s *control.Status) { s.Watching = nil }, want: []string{"KO-1502"}},
		"remote":          {change: func(s *control.Status) { s.Watching[0].Remote = true }, want: []string{"KO-1201"}},
		"reader ended":    {change: func(*control.Status) {}, err: errors.New("EIO"), want: []string{"KO-1202"}},
		"notify lost":     {change: func(s *control.Status) { s.Sensor.Overflows = 1 }, want: []string{"KO-1203"}},
		"refused opens":   {change: func(s *control.Status) { s.Sensor.NoFile = 1 }, want: []string{"KO-1204"}},
		"journal lost":    {change: func(s *control.Status) { s.Journal.Lost = 1 }, want: []string{"KO-1401"}},
		"starting": {
			change: func(s *control.Status) { s.Providers[0].State = supervisor.Loading },
			want:   []string{"KO-1601", "KO-1301"},
		},
		"degraded still votes": {
			change: func(s *control.Status) { s.Providers[0].State = supervisor.Degraded }, want: []string{"KO-1302"},
		},
		"disabled": {
			change: func(s *control.Status) { s.Providers[0].State = supervisor.Disabled },
			want:   []string{"KO-1601", "KO-1303"},
		},
		"reduced": {
			change: func(s *control.Status) {
				s.Providers[0].Confinement = sandbox.Confinement{
					Reduced: true, Layers: []sandbox.Layer{{Name: "user", Why: "keepoutd is not root"}},
				}
			},
			want: []string{"KO-1304"},
		},
		"bypassed": {
			change: func(s *control.Status) {
				s.Providers[0].Breaker = []docket.BreakerStatus{{Type: event.Open, State: arbiter.HalfOpen}}
			}, want: []string{"KO-1310"},
		},
		"too slow": {
			change: func(s *control.Status) {
				s.Providers[0].Demoted = &docket.Demotion{Why: docket.Slow, Cause: "a: slow"}
			},
			want: []string{"KO-1601", "KO-1311"},
		},
		"deny-storm": {
			change: func(s *control.Status) {
				s.Providers[0].Demoted = &docket.Demotion{Why: docket.DenyStorm, Cause: "a: denies"}
			},
			want: []string{"KO-1312", "KO-1601"},
		},
		"audit only": {
			change: func(s *control.Status) { s.Providers[0].Mode = event.Audit }, want: []string{"KO-1601"},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := good()
			tt.change(&s)
			var got []string
			command := func(args string) string { return "keepout --run-dir /x " + args }
			for _, p := range problems(&s, tt.err, command) {
				got = append(got, p.Code)
				if strings.Contains(strings.ReplaceAll(p.Fix, "keepout --run-dir /x ", ""), "keepout ") {
					t.Errorf("%s: the hint leads to another daemon: %s", p.Code, p.Fix)
				}
				if p.Title == "" || p.Fix == "" {
					t.Errorf("%s has no title or no fix: %+v", p.Code, p)
				}
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

// TestProblemsBeside: what is known from elsewhere is listed among the others, the worst first.
func TestProblemsBeside(t *testing.T) {
	s := control.Status{Mode: event.Monitor, Watching: []sensor.Filesystem{{Path: "/srv"}}}
	command := func(args string) string { return "keepout " + args }
	gap := health.Problem{Code: "KO-1107", Severity: health.Warning, Title: "gap"}
	got := problems(&s, nil, command, gap)
	if len(got) != 2 || got[0].Code != "KO-1107" || got[1].Code != "KO-1501" {
		t.Errorf("%+v", got)
	}
}

// TestProviderCause: a problem quotes one line of a provider's last words, and says once what to do.
func TestProviderCause(t *testing.T) {
	command := func(args string) string { return "keepout " + args }
	long := strings.Repeat("x", 300)
	for cause, want := range map[string][2]string{
		"signal: killed":                    {"a does not vote: signal: killed", "keepout provider list shows"},
		"":                                  {"a does not vote: backoff", "keepout provider list shows"},
		"exit status 1: " + long + "\nmore": {"a does not vote: exit status 1: xxx", "keepout provider list shows"},
		"p.yaml:1:1: KO-1005: no sha256. Next: keepout provider seal p": {
			"a does not vote: p.yaml:1:1: KO-1005: no sha256", "keepout provider seal p",
		},
	} {
		p, bad := providerProblem(&roster.Status{ID: "a", State: supervisor.Backoff, Cause: cause}, command)
		if !bad || !strings.HasPrefix(p.Title, want[0]) || !strings.HasPrefix(p.Fix, want[1]) ||
			len(p.Title) > 150 || strings.ContainsAny(p.Title, "\n") || p.Provider != "a" {
			t.Errorf("%.40q: %+v", cause, p)
		}
	}
}

// TestRefusedReload: what is wrong and what to do are each said once, however much is wrong.
func TestRefusedReload(t *testing.T) {
	d := &Daemon{opt: Options{Config: "k.yaml", RunDir: "/x", ProvidersDir: "/p"}}
	_, one := config.Parse("k.yaml", []byte("version: 1\nwach: 1\n"))
	_, two := config.Parse("k.yaml", []byte("version: 1\nwach: 1\nmood: 1\n"))
	for want, err := range map[string]error{
		"; then keepout --run-dir /x config reload":          one,
		"keepout config check k.yaml --providers-dir /p":     errors.Join(two),
		"keepout config check k.yaml --providers-dir /p\x00": errors.New("disk on fire"),
	} {
		p := d.refusedReload(err)
		if p.Code != "KO-2007" || !strings.HasSuffix(p.Fix, strings.TrimSuffix(want, "\x00")) ||
			strings.Contains(p.Title, "Next:") || strings.Contains(p.Fix, "Next:") || strings.Contains(p.Title, "\n") {
			t.Errorf("%v: %+v", err, p)
		}
	}
}

// TestCheckupComparesFiles: what a reload would change is known before it.
func TestCheckupComparesFiles(t *testing.T) {
	file := filepath.Join(t.TempDir(), "k.yaml")
	put := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put("version: 1\nmode: enforce\nwatch: [{path: /srv}]\n")
	inForce, err := config.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	if got := configOnDisk(file, inForce); got.Changed || got.Wrong != "" || got.Mode != event.Enforce {
		t.Errorf("the same file: %+v", got)
	}
	put("# a comment changes nothing\nversion: 1\nmode: enforce\nwatch: [{path: /srv}]\n")
	if got := configOnDisk(file, inForce); got.Changed || got.Wrong != "" {
		t.Errorf("a comment: %+v", got)
	}
	put("version: 1\nmode: enforce\nwatch: [{path: /srv, events: [exec]}]\n")
	if got := configOnDisk(file, inForce); !got.Changed || got.Wrong != "" {
		t.Errorf("another watch: %+v", got)
	}
	put("version: 1\nmood: enforce\n")
	if got := configOnDisk(file, inForce); !strings.Contains(got.Wrong, "KO-1001") {
		t.Errorf("a wrong file: %+v", got)
	}
}

// TestTellSystemd holds that reloading is told with the time that systemd asks for (sd_notify(3)).
func TestTellSystemd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	t.Setenv("NOTIFY_SOCKET", path)
	d := &Daemon{log: discard()}
	for state, want := range map[string]string{
		sd.SdNotifyReady: "READY=1", sd.SdNotifyReloading: "RELOADING=1\nMONOTONIC_USEC=", sd.SdNotifyStopping: "STOPPING=1",
	} {
		d.tell(state)
		if err := conn.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 256)
		n, err := conn.Read(buf)
		if err != nil || !strings.HasPrefix(string(buf[:n]), want) {
			t.Errorf("told %q (%v), want %q", buf[:n], err, want)
		}
	}
	if err := os.Unsetenv("NOTIFY_SOCKET"); err != nil {
		t.Fatal(err)
	}
	d.tell(sd.SdNotifyReady) // without systemd nothing happens
}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }
