package main

import (
	"crypto/md5"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/keepout-security/keepout/event"
	"github.com/keepout-security/keepout/internal/testenv"
	"github.com/keepout-security/keepout/provider"
	"github.com/keepout-security/keepout/providers/internal/enginetest"
	pb "github.com/keepout-security/keepout/wire/keepoutpb"
)

// cagedUID is a user like those of caged providers: it has no entry in the password file.
const cagedUID = 2068840449

// signature is a line of a .hdb file.
func signature(content []byte, name string) []byte {
	return fmt.Appendf(nil, "%x:%d:%s\n", md5.Sum(content), len(content), name)
}

// TestRealClamd runs the provider the way the platform does: as a process of its own with an empty
// environment, in the root folder and, where the test may, as a user without a name; against a real clamd.
func TestRealClamd(t *testing.T) {
	testenv.Need(t, testenv.ClamAV)
	s := provider.Settings{Content: folder(t), StateDir: folder(t)}
	enginetest.WriteFile(t, s.Content, "test.hdb", signature(enginetest.EICAR(), "Eicar-Test"))
	var pid int
	host := enginetest.StartProcess(t, func(auth, control *os.File) (func() error, error) {
		cmd := exec.Command("/proc/self/exe", asProvider)
		cmd.Dir, cmd.Env, cmd.Stderr = "/", []string{}, os.Stderr
		cmd.ExtraFiles = []*os.File{auth, control}
		if os.Geteuid() == 0 {
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: cagedUID, Gid: cagedUID}}
			for _, path := range []string{s.Content, s.StateDir} {
				if err := os.Chown(path, cagedUID, cagedUID); err != nil {
					return nil, err
				}
			}
		}
		err := cmd.Start()
		if err == nil {
			pid = cmd.Process.Pid
		}
		return cmd.Wait, err
	}, s)
	beat := host.AwaitHeartbeat("content version", ready(", 1 file, "))
	if !strings.HasPrefix(beat.GetContent(), "ClamAV ") {
		t.Errorf("content version %q", beat.GetContent())
	}
	t.Log(beat.GetContent())

	secret := enginetest.WriteFile(t, t.TempDir(), "secret", enginetest.EICAR())
	if err := os.Chmod(secret, 0o600); err != nil { // the descriptor is all that the provider gets
		t.Fatal(err)
	}
	clean := enginetest.WriteFile(t, t.TempDir(), "clean", []byte("nothing to see here"))
	expect(t, host, secret, event.Deny, "Eicar-Test.UNOFFICIAL")
	expect(t, host, clean, event.Allow, "")
	canary := enginetest.WriteFile(t, t.TempDir(), event.SelftestName+"1", enginetest.EICAR())
	expect(t, host, canary, event.Deny, event.SelftestRule+" (Eicar-Test.UNOFFICIAL)")
	likeOne := enginetest.WriteFile(t, t.TempDir(), event.SelftestName+"2", make([]byte, eicarSize))
	expect(t, host, likeOne, event.Allow, "")

	enginetest.WriteFile(t, s.Content, "test.hdb", []byte("not a signature\n"))
	host.Reload()
	refusal := host.AwaitHeartbeat("degraded heartbeat", degraded("clamd ended while loading: "))
	if !strings.Contains(refusal.GetDetail(), "line 1") {
		t.Errorf("detail %q does not name the line", refusal.GetDetail())
	}
	expect(t, host, secret, event.Deny, "Eicar-Test.UNOFFICIAL")

	enginetest.WriteFile(t, s.Content, "test.hdb", signature([]byte("nothing to see here"), "Seen"))
	host.Reload()
	host.AwaitHeartbeat("ready heartbeat", func(b *pb.Heartbeat) bool {
		return b.GetState() == pb.State_STATE_READY && b.GetContent() != beat.GetContent()
	})
	expect(t, host, clean, event.Deny, "Seen.UNOFFICIAL")
	expect(t, host, secret, event.Allow, "")
	expect(t, host, canary, event.Abstain, event.SelftestRule+" (the database does not know the EICAR test file)")

	clamd := childOf(t, pid)
	if err := syscall.Kill(clamd, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	host.AwaitHeartbeat("degraded heartbeat", degraded("clamd is restarting: it ended: (signal: killed)"))
	host.AwaitHeartbeat("ready heartbeat", ready(""))
	expect(t, host, clean, event.Deny, "Seen.UNOFFICIAL")

	// clamd never outlives the provider, however that ends.
	clamd = childOf(t, pid)
	host.Kill(pid)
	awaitEnd(t, clamd)
}

func expect(t *testing.T, host *enginetest.Host, path string, action event.Action, rule string) {
	t.Helper()
	if v := host.Ask(path, enginetest.Patience); v.Action != action || v.Rule != rule {
		t.Errorf("vote on %s = %+v, want %s %s", filepath.Base(path), v, action, rule)
	}
}

// childOf returns the one child of a process.
func childOf(t *testing.T, pid int) int {
	t.Helper()
	found := 0
	paths, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // that thread has ended
		}
		for _, word := range strings.Fields(string(text)) {
			if _, err := fmt.Sscan(word, &found); err != nil {
				t.Fatal(err)
			}
		}
	}
	if found == 0 {
		t.Fatalf("process %d has no child", pid)
	}
	return found
}

// awaitEnd waits until a process is gone, or dead and not yet waited for.
func awaitEnd(t *testing.T, pid int) {
	t.Helper()
	limit := time.Now().Add(enginetest.Patience)
	for ; time.Now().Before(limit); time.Sleep(5 * time.Millisecond) {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil || strings.Contains(string(stat), ") Z ") || strings.Contains(string(stat), ") X ") {
			return
		}
	}
	t.Errorf("process %d still runs", pid)
}

// BenchmarkScan measures one question to a real clamd, connection included.
func BenchmarkScan(b *testing.B) {
	testenv.Need(b, testenv.ClamAV)
	content, err := os.MkdirTemp("", "ko")
	if err != nil {
		b.Fatal(err)
	}
	defer os.RemoveAll(content)
	enginetest.WriteFile(b, content, "test.hdb", signature(enginetest.EICAR(), "Eicar-Test"))
	a := &antivirus{find: findClamd}
	defer a.close()
	if _, err := a.load(b.Context(), provider.Settings{Content: content, StateDir: content}); err != nil {
		b.Fatal(err)
	}
	f, err := os.Open(enginetest.WriteFile(b, b.TempDir(), "f", make([]byte, 5000)))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	for b.Loop() {
		found, err := a.current.Load().scan(b.Context(), int(f.Fd()))
		if err != nil || found != (finding{}) {
			b.Fatal(found, err)
		}
	}
}
