package intent

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/keepout-security/keepout/internal/recovery/esp"
	"github.com/keepout-security/keepout/internal/recovery/protocol"
	"github.com/keepout-security/keepout/internal/recovery/remediation"
)

// TestNothingFollowsFromADiskThatCannotBeRead: while it does not give the keys, the failure or the memory, a fix waits,
// and nothing is written over what was remembered; afterwards what was taken, and taken back, is still known.
func TestNothingFollowsFromADiskThatCannotBeRead(t *testing.T) {
	t.Parallel()
	for _, name := range []string{TrustFile, failureFile, memoryFile} {
		dir, f := machine(t)
		trust, now := dir.Join(esp.Trust), time.Now()
		list, err := protocol.EncodeRevocations([][]byte{revoking(t, "back", "a")})
		if err != nil {
			t.Fatal(err)
		}
		if err := Learn(list, trust, "", now); err != nil {
			t.Fatal(err)
		}
		first := sealed(t, "one", f.Bundle, disable)
		if _, err := Verify(first, trust); err != nil {
			t.Fatal(err)
		}
		f.Bundle = strings.Repeat("3", 64)
		if err := Note(dir, f); err != nil {
			t.Fatal(err)
		}
		before, err := os.ReadFile(dir.Join(memoryFile))
		if err != nil {
			t.Fatal(err)
		}
		broken := func(file string, limit int64) ([]byte, error) {
			if filepath.Base(file) == name {
				return nil, &fs.PathError{Op: "read", Path: file, Err: syscall.EIO}
			}
			return read(file, limit)
		}
		next := sealed(t, "two", f.Bundle, disable)
		got, err := verify(broken, next, trust)
		if !got.Later || !got.Orders.None() || err == nil || !strings.HasSuffix(err.Error(), "input/output error") {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
		other, err := protocol.EncodeRevocations([][]byte{revoking(t, "other", "a")})
		if err != nil {
			t.Fatal(err)
		}
		if err := learn(broken, other, trust, "", now); err == nil && name != failureFile {
			t.Errorf("%s: what cannot be remembered safely is learned", name)
		}
		after, err := os.ReadFile(dir.Join(memoryFile))
		if err != nil || name != failureFile && !bytes.Equal(before, after) {
			t.Errorf("%s: the memory was %s, and is %s, %v", name, before, after, err)
		}
		if got, err := Verify(next, trust); err != nil || got.Later || got.Lost != "" {
			t.Errorf("%s: afterwards %+v, %v", name, got, err)
		}
		if _, err := Verify(sealed(t, "back", f.Bundle, disable), trust); codeOf(err) != remediation.CodeRevoked {
			t.Errorf("%s: what was taken back: %v", name, err)
		}
	}
}
