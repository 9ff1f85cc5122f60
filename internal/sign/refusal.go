package sign

import (
	"errors"
	"fmt"
	"time"

	"github.com/keepout-security/keepout/internal/health"
)

// The codes of what this package refuses. docs/errors.md explains each.
const (
	CodeEnvelope  = "KO-2102" // no signed statement: damaged, torn or too large
	CodeThreshold = "KO-2103" // too few valid signatures of the role
	CodeType      = "KO-2104" // a statement of another type than asked for
	CodeState     = "KO-2105" // the host's own memory of what it verified is damaged

	CodeMissing  = "KO-2110" // a metadata file is not there or cannot be read
	CodeEndless  = "KO-2111" // a metadata file is longer than any may be
	CodeMetadata = "KO-2112" // a metadata file is torn, or no metadata
	CodeExpired  = "KO-2113" // metadata is not current any more; bars activation only
	CodeOlder    = "KO-2114" // metadata is older than what was seen before
	CodeMixed    = "KO-2115" // files of one repository do not belong together

	CodeVendor    = "KO-2116" // the operator does not name the vendor, or not for this provider
	CodeNotVendor = "KO-2117" // only the operator names the release
	CodeNotBoth   = "KO-2118" // only the vendor names the release
	CodeDiffer    = "KO-2119" // both name it, but not the same bytes or not the same release
	CodeHardware  = "KO-2120" // the release is for other hardware
	CodeFloor     = "KO-2121" // the release lies below the security floor
	CodeShrunk    = "KO-2122" // content is empty or less than half of what it was
	CodeRelease   = "KO-2123" // the description of a release breaks a rule
)

// refuse makes a refusal: what was refused and why, and what to do about it.
func refuse(code, next, format string, args ...any) error {
	return health.Problem{
		Code: code, Severity: health.Failure, Title: fmt.Sprintf(format, args...), Fix: next,
	}
}

// CodeOf returns the stable code of a refusal anywhere in err, or "" when there is none.
func CodeOf(err error) string {
	var p health.Problem
	if errors.As(err, &p) {
		return p.Code
	}
	return ""
}

// advice is what to do about a refused metadata file.
var advice = map[string]string{
	CodeMissing:  "copy the repository again, whole",
	CodeEndless:  "copy the repository again from a source that you trust",
	CodeMetadata: "copy the repository again, whole",
	CodeMixed:    "copy the repository again while nobody writes to it",
	CodeOlder: "copy the newest repository; if this is the newest, somebody offers an old one: find out where it " +
		"came from",
	CodeThreshold: "if it was just signed, have the others sign too; otherwise find out where it came from",
}

// refuse is a refusal of one file of this repository.
func (r *repository) refuse(code, file, format string, args ...any) error {
	return refuse(code, advice[code], "%s of %s is refused: %s", file, r.who, fmt.Sprintf(format, args...))
}

func (r *repository) older(what string, got, seen int64) error {
	return r.refuse(CodeOlder, what, "it is version %d, and version %d was seen before", got, seen)
}

// expired is the refusal of metadata that was good until a time. When the clock is far from the time of signing, the
// clock is the likelier cause, and is named first.
func (r *repository) expired(e expiry, now time.Time) error {
	next := "have it signed again (keepout package sign --refresh) and copy the repository; what runs goes on"
	if at := r.timestamp.SignedAt; !at.IsZero() && now.Sub(at) > year {
		next = fmt.Sprintf("set the clock: it says %s, and this was signed at %s; if the clock is right, %s",
			day(now), day(at), next)
	}
	return refuse(CodeExpired, next, "%s of %s is refused: it was good until %s", e.file, r.who, stamp(e.at))
}

const year = 365 * 24 * time.Hour

func day(t time.Time) string   { return t.UTC().Format(time.DateOnly) }
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }
