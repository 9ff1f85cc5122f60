// Package store is what the control plane knows: the only truth, in SQL.
//
// It guarantees that what Update's function wrote is on the disk, all of it, when Update returns nil, and that
// otherwise nothing is; that the audit trail is only ever added to; and that nobody outside this package knows which
// database it is: another implementation passes storetest, and nothing else changes.
package store

import (
	"context"
	"errors"
	"time"

	"github.com/keepout-security/keepout/internal/fleet/audit"
)

// ErrNotFound is returned for one row that is not there.
var ErrNotFound = errors.New("not found")

// ErrStale is returned when somebody else changed the row since it was read.
var ErrStale = errors.New("changed meanwhile")

// ErrFull is returned when the disk has no room. Nothing was changed.
var ErrFull = errors.New("the disk is full")

// Page is the most rows that a list returns at once.
const Page = 1000

// Store is safe for concurrent use.
type Store interface {
	// View reads one consistent state. The function must not keep the Reader.
	View(ctx context.Context, read func(Reader) error) error
	// Update reads and writes in one transaction, one after the other. It is durable when it returns nil; on an
	// error of the function, or another, nothing of it happened. The function must not keep the Tx.
	Update(ctx context.Context, change func(Tx) error) error
	// Close waits for what is under way.
	Close() error
}

// Reader is one consistent state.
type Reader interface {
	// Meta is the value of a key, or ErrNotFound.
	Meta(key string) (string, error)

	Host(id string) (Host, error)
	// Hosts lists hosts with an id after the given one, ordered by id; an empty state is any.
	Hosts(after, state string, limit int) ([]Host, error)
	// HostsLike lists hosts with this machine id or key, whatever their state. Empty ones match nothing.
	HostsLike(machineID, keyHash string) ([]Host, error)

	EnrolToken(id string) (EnrolToken, error)
	EnrolTokenByHash(hash string) (EnrolToken, error)
	// EnrolTokens lists them, the newest first.
	EnrolTokens() ([]EnrolToken, error)
	AccessToken(id string) (AccessToken, error)
	AccessTokenByHash(hash string) (AccessToken, error)
	// AccessTokens lists them, the newest first.
	AccessTokens() ([]AccessToken, error)

	Rollout(id string) (Rollout, error)
	// Rollouts lists them, the newest first.
	Rollouts(limit int) ([]Rollout, error)
	// Row is what a rollout keeps of one host.
	Row(rollout, host string) (Row, error)
	// RowsDue lists rows with a Due that is not 0 and not after upto, the earliest first.
	RowsDue(rollout string, upto time.Duration, limit int) ([]Row, error)

	// Holds lists them by name.
	Holds() ([]Hold, error)

	// Buckets lists them, the largest first; empty filters match all.
	Buckets(provider, digest string, limit int) ([]Bucket, error)
	// KnownSignature says whether another digest of the provider had this signature before that time.
	KnownSignature(provider, signature, notDigest string, before time.Time) (bool, error)
	// Signatures lists those that any other digest of the provider had.
	Signatures(provider, notDigest string, limit int) ([]string, error)
	Beacons(limit int) ([]Beacon, error)

	// Bundle is one by its whole digest; BundleLike is the only one whose digest begins so, or ErrNotFound.
	Bundle(digest string) (Bundle, error)
	BundleLike(prefix string) (Bundle, error)
	// Parcel is a bundle's sealed form, or ErrNotFound once only the header is kept.
	Parcel(digest string) ([]byte, error)
	// Bundles lists them without their versions, the newest first; empty filters match all.
	Bundles(signature, machine string, limit int) ([]Bundle, error)
	// Groups lists them, the largest first.
	Groups(limit int) ([]Group, error)
	Remediation(id string) (Remediation, error)
	// Remediations lists them, the newest first; an empty status is any.
	Remediations(status string, limit int) ([]Remediation, error)

	// Audit lists entries after the given number, in order.
	Audit(after uint64, limit int) ([]audit.Entry, error)
	// AuditHead is the last entry, or the zero one.
	AuditHead() (audit.Entry, error)
}

// Tx is a transaction.
type Tx interface {
	Reader

	SetMeta(key, value string) error
	// PutHost writes a whole host.
	PutHost(h Host) error
	// CheckIns updates what check-ins change, for hosts that exist; others are left out.
	CheckIns(batch []CheckIn) error

	PutEnrolToken(t EnrolToken) error
	PutAccessToken(t AccessToken) error

	// PutRollout writes a rollout if its revision is the one stored (0 for a new one), and adds one to it;
	// otherwise ErrStale.
	PutRollout(r *Rollout) error
	// PutRows writes rows, each in place of an earlier one of the same rollout and host.
	PutRows(rows []Row) error

	// AddBuckets adds counts, and the hosts that they come from.
	AddBuckets(reports []BucketReport) error
	PutBeacon(b Beacon) error
	// PutHold writes a whole hold; DropHold removes one, or returns ErrNotFound.
	PutHold(h Hold) error
	DropHold(name string) error

	// PutBundle adds a bundle, or to one without a signature what was lacking, and reports whether it did. Size is the
	// parcel's. It forgets what is too much.
	PutBundle(b *Bundle, parcel []byte) (added bool, err error)
	// MarkBundle says that the bundle's machine asked for a fix, and whom it suspects.
	MarkBundle(digest, suspect string) error
	// PutRemediation writes a whole remediation.
	PutRemediation(r *Remediation) error

	// Append adds an entry to the audit trail and returns it with its number and hash.
	Append(e audit.Entry) (audit.Entry, error)
}
