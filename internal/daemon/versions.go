package daemon

import (
	"fmt"

	"github.com/keepout-security/keepout/internal/control"
	"github.com/keepout-security/keepout/internal/health"
	"github.com/keepout-security/keepout/internal/journal"
	"github.com/keepout-security/keepout/internal/rollback"
)

// setVersion does what an operator wants of a provider's versions.
func (d *Daemon) setVersion(req control.Request) error {
	part := rollback.Part(req.Part)
	if part != "" && part != rollback.Engine && part != rollback.Content {
		return health.Problem{
			Code: "KO-2006", Severity: health.Failure, Title: fmt.Sprintf("part %q is not known", req.Part),
			Fix: "say engine or content, or nothing for what changed last",
		}
	}
	var err error
	switch req.Action {
	case "rollback":
		err = d.roster.RollBack(req.Provider, part, req.Reason)
	case "promote":
		err = d.roster.Promote(req.Provider)
	case "allow":
		err = d.roster.Allow(req.Provider, req.SHA256)
	default:
		return health.Problem{
			Code: "KO-2005", Severity: health.Failure, Title: fmt.Sprintf("unknown action %q", req.Action),
			Fix: "say rollback, promote or allow; docs/control.md explains them",
		}
	}
	if err != nil {
		return health.Problem{
			Code: "KO-2003", Title: err.Error(), Severity: health.Failure, Fix: "keepout provider versions lists what there is",
		}
	}
	d.journal.Note(journal.Note{
		Provider: req.Provider, Code: "version." + req.Action, Title: "An operator asked for it",
		Severity: journal.Informational, Detail: fmt.Sprintf("%s %s %s", req.Part, req.SHA256, req.Reason),
	})
	return nil
}
