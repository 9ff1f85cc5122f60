package store

import (
	"fmt"
	"strconv"

	"github.com/keepout-security/keepout/internal/health"
)

// Codes of problems and refusals; docs/errors.md explains them.
const (
	CodeTorn       = "KO-1701" // one copy of a provider's slots was damaged
	CodeForgotten  = "KO-1702" // both were
	CodeUnwritable = "KO-1708" // the store's folder cannot be read or written

	CodeUnreadable = "KO-1721" // a package cannot be read
	CodeForbidden  = "KO-1722" // it has something else than plain files and folders
	CodeName       = "KO-1723" // it has a name that is not plain
	CodeTooLarge   = "KO-1724" // it is beyond the limits
	CodeChanged    = "KO-1725" // it changed while it was read
	CodeArchive    = "KO-1726" // it is no tar archive
	CodeShape      = "KO-1727" // it lacks what its kind must have
	CodeObject     = "KO-1728" // a stored package is missing or damaged
)

// refuse makes the error about one place in a package.
func refuse(code, source, path, why, next string) error {
	where := source
	if path != "" && path != "." {
		where += ": " + strconv.Quote(path)
	}
	return health.Problem{Code: code, Severity: health.Failure, Title: where + " " + why, Fix: next}
}

// unreadable wraps an error of reading a package.
func unreadable(source, path string, err error) error {
	return refuse(CodeUnreadable, source, path, "cannot be read: "+err.Error(),
		"see that it exists and that its file system is well")
}

// unwritable wraps an error of writing the store.
func unwritable(dir string, err error) error {
	return health.Problem{
		Code: CodeUnwritable, Severity: health.Failure, Title: fmt.Sprintf("the store %s cannot be used: %v", dir, err),
		Fix: "make room on the disk, and see that the folder belongs to keepoutd's user",
	}
}
