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
	"github.com/keepout-security/keepout/internal/control"
	"github.com/keepout-security/keepout/internal/docket"
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
			for _, p := range problems(&s, tt.err) {
				got = append(got, p.Code)
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
