package sandbox

import (
	"errors"
	"os"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// self is what the launcher is executed from where a copy in memory is not possible.
const self = "/proc/self/exe"

// image is what the launcher is executed from: a copy of this program in memory, which is on no file system that can
// be watched; nil where the kernel gives none. Go forks holding a lock of its runtime and waits for the child's exec.
// If that exec raised a permission event, and the collector wanted to stop the world just then, the readers that must
// answer the event could be stopped, for a thread that waits for the answer.
var image = sync.OnceValue(func() *os.File {
	program, err := os.Open(self)
	if err != nil {
		return nil
	}
	defer closeFile(program)
	info, err := program.Stat()
	if err != nil {
		return nil
	}
	// Open for the life of the process. Hosts with vm.memfd_noexec=1 want MFD_EXEC said, kernels before 6.3 do not
	// know it; with vm.memfd_noexec=2 nothing helps, and only then the file itself is used.
	memory, err := unix.MemfdCreate("keepoutd", unix.MFD_CLOEXEC|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) {
		memory, err = unix.MemfdCreate("keepoutd", unix.MFD_CLOEXEC)
	}
	if err != nil {
		return nil
	}
	for left := int(info.Size()); left > 0; {
		n, err := unix.Sendfile(memory, int(program.Fd()), nil, left)
		if err != nil || n == 0 {
			_ = unix.Close(memory)
			return nil
		}
		left -= n
	}
	return os.NewFile(uintptr(memory), "memory")
})

// launcherPath is the path of the image as the child sees it, and what must be passed on for that. It is a path of
// the child's own descriptors: in a user namespace it may not look at the core's.
func launcherPath() (path string, files []*os.File) {
	if f := image(); f != nil {
		return "/proc/self/fd/" + strconv.Itoa(imageFD), []*os.File{f}
	}
	return self, nil
}
