package control

import (
	"errors"
	"io/fs"
	"os/exec"
	"strings"
	"testing"
)

// TestCommand: a hint leads to the daemon that gave it, and can be typed as it stands.
func TestCommand(t *testing.T) {
	t.Parallel()
	for dir, want := range map[string]string{
		"": "keepout status", DefaultDir: "keepout status", "/tmp/run": "keepout --run-dir /tmp/run status",
	} {
		if got := Command(dir, "status"); got != want {
			t.Errorf("%q: %q, want %q", dir, got, want)
		}
	}
	for _, dir := range []string{"/tmp/a b", "/tmp/$(id)", "/tmp/it's", "/tmp/;x", "/tmp/ä*"} {
		line := strings.Replace(Command(dir, "status"), "keepout", "printf %s:%s:%s:%s x", 1)
		out, err := exec.CommandContext(t.Context(), "/bin/sh", "-c", line).Output()
		if err != nil || string(out) != "x:--run-dir:"+dir+":status" {
			t.Errorf("%q: the shell reads %q as %q (%v)", dir, Command(dir, "status"), out, err)
		}
	}
	if got := Command("run", "status"); !strings.Contains(got, " --run-dir /") {
		t.Errorf("a relative folder: %q", got)
	}
}

func TestUnreachable(t *testing.T) {
	t.Parallel()
	p := Unreachable("/tmp/run", errors.Join(ErrUnreachable, fs.ErrPermission))
	if p.Code != "KO-2001" || !strings.HasSuffix(p.Fix, "sudo keepout --run-dir /tmp/run status") {
		t.Errorf("%+v", p)
	}
	if p := Unreachable("/tmp/run", ErrUnreachable); !strings.Contains(p.Fix, "start keepoutd") {
		t.Errorf("%+v", p)
	}
}
