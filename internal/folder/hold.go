package folder

import (
	"errors"
	"io"
)

// ErrHeld says that somebody tidies the folder up, for Reading, or reads it, for Tidying.
var ErrHeld = errors.New("somebody else is at it")

// Reading keeps from the folder whoever tidies it up, until the hold is closed or its process ends. It never waits:
// while it is being tidied up the error is ErrHeld, and another one where the file system has no locks (flock(2)).
func (f *Folder) Reading() (io.Closer, error) { return f.hold(false) }

// Tidying is had by one at a time, and while nobody has Reading: whoever has it may remove what a reader who comes
// later does not look for. It never waits, and has the errors of Reading.
func (f *Folder) Tidying() (io.Closer, error) { return f.hold(true) }
