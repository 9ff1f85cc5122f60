package sandbox

import (
	"os"
	"strconv"
	"strings"
	"sync"

	"github.com/keepout-security/keepout/internal/memexec"
)

// self is what the launcher is executed from where this program is in memory already, or no copy of it is possible.
const self = "/proc/self/exe"

// image is what the launcher is executed from: a copy of this program in memory, which is on no file system that can
// be watched; nil where the kernel gives none. Go forks holding a lock of its runtime and waits for the child's exec.
// If that exec raised a permission event, and the collector wanted to stop the world just then, the readers that must
// answer the event could be stopped, for a thread that waits for the answer.
var image = sync.OnceValue(func() *os.File {
	if to, err := os.Readlink(self); err == nil && strings.HasPrefix(to, "/memfd:") {
		return nil // the guard has seen to it
	}
	memory, err := memexec.Load("keepout-core", self)
	if err != nil {
		return nil // with vm.memfd_noexec=2 nothing helps
	}
	return memory
})

// launcherPath is the path of the image as the child sees it, and what must be passed on for that. It is a path of
// the child's own descriptors: in a user namespace it may not look at the core's.
func launcherPath() (path string, files []*os.File) {
	if f := image(); f != nil {
		return "/proc/self/fd/" + strconv.Itoa(imageFD), []*os.File{f}
	}
	return self, nil
}
