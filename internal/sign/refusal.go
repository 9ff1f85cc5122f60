package sign

import (
	"errors"
	"fmt"

	"github.com/keepout-security/keepout/internal/health"
)

// The codes of what this package refuses. docs/errors.md explains each.
const (
	CodeEnvelope  = "KO-2102" // no signed statement: damaged, torn or too large
	CodeThreshold = "KO-2103" // too few valid signatures of the role
	CodeType      = "KO-2104" // a statement of another type than asked for
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
