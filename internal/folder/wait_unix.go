//go:build unix

package folder

import "syscall"

// dontWait keeps open(2) from waiting for the other end of a pipe.
const dontWait = syscall.O_NONBLOCK
