package sign

import (
	"io/fs"
	"time"
)

// Trust is what a host takes for granted.
type Trust struct {
	// OperatorRoot is a root file of the operator's repository, given at enrolment. Newer ones are found from there.
	OperatorRoot []byte
	// Vendor is the operator's name for whose release this is. The operator's repository names the vendor's root.
	Vendor string
	// Hardware is what the host is: "linux/amd64".
	Hardware string
}

// Verify decides whether a release may be activated: path (as "acme-edr/engine/4.2.0") must be named by the vendor's
// and by the operator's repository, with the same digest, length and release, under the signatures that the roles of
// each demand, and all metadata must be current at now or at the time floor, whichever is later. The folders hold
// TUF metadata: timestamp.json, N.root.json, N.snapshot.json, N.targets.json and N.ROLE.json.
//
// The returned State is to be kept also when there is an error: it holds what was verified up to there. A refusal is
// a health.Problem; the Target is empty then. It bars this activation and nothing else: what runs goes on, and what
// was verified before can be returned to (State.Allows). Verify reads both folders and nothing else, waits for
// nothing, and is safe for concurrent use.
func Verify(trust Trust, state State, now time.Time, vendor, operator fs.FS, path string) (Target, State, error) {
	v := verification{trust: trust, state: state.clone(), now: now}
	target, err := v.run(vendor, operator, path)
	return target, v.state, err
}

// VerifyOperator brings the state up to date with the operator's repository alone: who may grant, halt and recover,
// and who was revoked. It finds revocations also in metadata that has expired; the error then says so.
func VerifyOperator(trust Trust, state State, now time.Time, operator fs.FS) (State, error) {
	v := verification{trust: trust, state: state.clone(), now: now}
	_, err := v.operator(operator)
	return v.state, err
}
