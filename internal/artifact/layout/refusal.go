package layout

import (
	"errors"
	"fmt"

	"github.com/keepout-security/keepout/internal/health"
)

// The codes of what this package refuses. docs/errors.md explains each.
const (
	CodeUnreadable = "KO-2131" // a part is missing or cannot be read
	CodeChanged    = "KO-2132" // the bytes are not those that the digest names
	CodeForbidden  = "KO-2133" // a link, a device, a name that leads out, …
	CodeLimit      = "KO-2134" // too large or too many
	CodePackage    = "KO-2135" // no package of Keepout
)

func refuse(code, next, format string, args ...any) error {
	return health.Problem{Code: code, Severity: health.Failure, Title: fmt.Sprintf(format, args...), Fix: next}
}

func unreadable(what string, err error) error {
	return refuse(CodeUnreadable, "copy the package again, whole", "%s cannot be read: %v", what, err)
}

func isRefusal(err error) bool {
	var p health.Problem
	return errors.As(err, &p)
}
