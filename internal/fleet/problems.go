package fleet

import (
	"context"
	"errors"
	"fmt"

	"connectrpc.com/connect"

	"github.com/keepout-security/keepout/internal/fleet/conductor"
	"github.com/keepout-security/keepout/internal/fleet/store"
	"github.com/keepout-security/keepout/internal/health"
)

// The codes of refusals; docs/errors.md says more about each.
const (
	codeToken       = "KO-2201"
	codeRole        = "KO-2202"
	codeCertificate = "KO-2203"
	codeEnrol       = "KO-2204"
	codeRequest     = "KO-2205"
	codeQuarantine  = "KO-2206"
	codeBusy        = "KO-2207"
	codeInvalid     = "KO-2208"
	codeNotFound    = "KO-2209"
	codeInternal    = "KO-2213"
	codeFull        = "KO-2218"
	codeScope       = "KO-2220"

	codeBundle    = "KO-2701"
	codeAsked     = "KO-2702"
	codeFixKeys   = "KO-2703"
	codeFixPerson = "KO-2704"
	codeFixStatus = "KO-2705"
	codeNotKept   = "KO-2706"
)

// refusal is a health.Problem with the code that the protocol has for its kind.
func refusal(kind connect.Code, code, next, what string, args ...any) *connect.Error {
	return connect.NewError(kind, health.Problem{
		Code: code, Title: fmt.Sprintf(what, args...), Severity: health.Failure, Fix: next,
	})
}

func invalid(what string, args ...any) error {
	return refusal(connect.CodeInvalidArgument, codeInvalid, "correct the request; /openapi.json describes it",
		what, args...)
}

// answer turns an error from below into one that says what to do.
func answer(err error) error {
	var known *connect.Error
	var refused *conductor.Refusal
	switch {
	case err == nil:
		return nil
	case errors.As(err, &known):
		return known
	case errors.As(err, &refused):
		return connect.NewError(refusalKind(refused.Problem.Code), refused.Problem)
	case errors.Is(err, store.ErrNotFound):
		return refusal(connect.CodeNotFound, codeNotFound, "list what there is", "there is none with this id")
	case errors.Is(err, store.ErrFull):
		return refusal(connect.CodeUnavailable, codeFull, "make room on the disk of the control plane; it goes on by itself",
			"the disk of the control plane is full: nothing was done and nothing is lost")
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return connect.NewError(connect.CodeDeadlineExceeded, err)
	default:
		return refusal(connect.CodeUnavailable, codeInternal, "see the log of keepout-fleet; is its disk full?",
			"the control plane could not do this: %v", err)
	}
}

func refusalKind(code string) connect.Code {
	switch code {
	case conductor.CodeNotFound:
		return connect.CodeNotFound
	case conductor.CodeSamePerson:
		return connect.CodePermissionDenied
	case conductor.CodeName:
		return connect.CodeAlreadyExists
	case conductor.CodeSpec:
		return connect.CodeInvalidArgument
	default:
		return connect.CodeFailedPrecondition
	}
}
