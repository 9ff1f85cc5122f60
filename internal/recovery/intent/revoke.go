package intent

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"time"

	"github.com/keepout-security/keepout/internal/health"
	"github.com/keepout-security/keepout/internal/recovery/esp"
	"github.com/keepout-security/keepout/internal/recovery/protocol"
	"github.com/keepout-security/keepout/internal/recovery/remediation"
)

// ErrNoRevocation matches (errors.Is) the error of Revoke and Learn about something else.
var ErrNoRevocation = errors.New("it is no revocation")

// ErrLost matches (errors.Is) the error of Revoke and Learn when the memory was damaged and is begun anew.
var ErrLost = errors.New("the memory of fixes was damaged and is begun anew")

// Revoke takes fixes back that a revocation names, for good: neither the recovery environment nor the next boot
// believes one of them any more, also one that already lies among the intents. It is remembered when Revoke returns
// nil. A revocation that is known already is no error; ErrLost is one, and this revocation holds all the same.
func Revoke(dir *esp.Dir, trust remediation.Trust, f *Failure, now time.Time, sealed []byte) error {
	m, lost, err := remembered(read, dir)
	if err != nil {
		return err
	}
	news, err := m.revoke(trust, f, now, sealed)
	if err != nil || !news {
		return err
	}
	return keepBut(dir, m, 0, lost)
}

// keepBut is keep, and says what is lost by it.
func keepBut(dir *esp.Dir, m memory, least int, lost string) error {
	err := keep(dir, m, least)
	if err == nil && lost != "" {
		return fmt.Errorf("%w: %s", ErrLost, lost)
	}
	return err
}

// Learn takes what a host's fetcher staged (protocol.RevocationsFile) while the system ran, as Revoke does, and
// remembers all of it at once. trust is the folder of the keys, machineID the host's own; without keys there is nothing
// to do. The errors are about revocations that were refused, or ErrLost; the others hold all the same.
func Learn(text []byte, trust, machineID string, now time.Time) error {
	return learn(read, text, trust, machineID, now)
}

func learn(read reading, text []byte, trust, machineID string, now time.Time) error {
	list, err := protocol.DecodeRevocations(text)
	if err != nil || len(list) == 0 {
		return err
	}
	roles, err := readTrust(read, trust)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // no fix is believed here, so that there is nothing to take back
	}
	if err != nil {
		return err
	}
	dir := esp.Open(filepath.Dir(trust))
	m, lost, err := remembered(read, dir)
	if err != nil {
		return err
	}
	changed, errs := false, []error(nil)
	for i, sealed := range list {
		news, err := m.revoke(roles, &Failure{Machine: protocol.Pseudonym(machineID)}, now, sealed)
		changed = changed || news
		if err != nil {
			errs = append(errs, fmt.Errorf("revocation %d of %d is refused: %w", i+1, len(list), err))
		}
	}
	if changed {
		errs = append(errs, keepBut(dir, m, unsent, lost))
	}
	return errors.Join(errs...)
}

// revoke adds what a revocation takes back, and reports whether that is news.
func (m *memory) revoke(trust remediation.Trust, f *Failure, now time.Time, sealed []byte) (news bool, err error) {
	plan, err := remediation.Judge(trust, f.raise(m.State), f.machine(false, now), sealed)
	if known := (health.Problem{}); errors.As(err, &known) && known.Code == remediation.CodeReplay {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if plan.Fix.Kind != remediation.Revocation {
		return false, ErrNoRevocation
	}
	m.State = plan.State
	// The state before the last fix, too: a power cut may let that fix be judged by it once more.
	m.Before.Revoked = slices.Clone(plan.State.Revoked)
	m.Before.RevokedKeys = slices.Clone(plan.State.RevokedKeys)
	return true, nil
}
