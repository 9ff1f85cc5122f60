package packaging

import (
	"slices"
	"strings"
	"testing"
)

// TestDaemonUnit: systemd starts the guard, hears the core, leaves the cages to it, and kills only what is left.
func TestDaemonUnit(t *testing.T) {
	t.Parallel()
	lines := strings.Split(string(Daemon("/opt/keepout/bin")), "\n")
	for _, want := range []string{
		"ExecStart=/opt/keepout/bin/keepoutd", "Type=notify", "NotifyAccess=all", "KillMode=mixed", "Delegate=yes",
		"RuntimeDirectory=keepout", "StateDirectory=keepout", "Restart=always", "WantedBy=multi-user.target",
	} {
		if !slices.Contains(lines, want) {
			t.Errorf("no line %q", want)
		}
	}
}
