package conformance

import (
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"

	pb "github.com/keepout-security/keepout/wire/keepoutpb"
)

// identify fills in what stat(2) says beyond the portable part.
func identify(info fs.FileInfo, f *pb.File) {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		f.Dev, f.Ino, f.Mode, f.Uid = st.Dev, st.Ino, st.Mode, st.Uid
		f.CtimeNs = st.Ctim.Nano()
	}
}

// pause stops the program, and resume lets it continue.
func (p *Peer) pause() error  { return p.process.Process.Signal(syscall.SIGSTOP) }
func (p *Peer) resume() error { return p.process.Process.Signal(syscall.SIGCONT) }

// stopped reports whether the program is stopped, from the state in proc_pid_stat(5).
func (p *Peer) stopped() (bool, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.process.Process.Pid))
	if err != nil {
		return false, fmt.Errorf("read process state: %w", err)
	}
	_, after, _ := strings.Cut(string(text[strings.LastIndexByte(string(text), ')')+1:]), " ")
	return strings.HasPrefix(after, "T"), nil
}

// descriptors counts what the program has open.
func (p *Peer) descriptors() (int, error) {
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.process.Process.Pid))
	if err != nil {
		return 0, fmt.Errorf("count descriptors: %w", err)
	}
	return len(entries), nil
}
