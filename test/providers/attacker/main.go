// Command attacker attempts one attack and says whether it succeeded. test/root runs it with and without each layer of
// the cage. It attacks only what the test made for it: no attack changes anything of the host, and each is bounded.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"

	"github.com/keepout-security/keepout/wire"
)

// Orders say what to attack; the test fills in what the attack needs.
type Orders struct {
	Attack   string
	Victim   int    // a process of the test
	Secret   string // a file that only root may read
	Handle   []byte // of Secret, as open_by_handle_at(2) takes it
	Kind     int32  // of Handle
	Scratch  string // a folder that everybody may write to, outside the cage
	State    string // the state folder
	Port     int    // of a TCP and a UDP socket on 127.0.0.1
	Abstract string // name of an abstract socket
	Socket   string // path of a socket
	Key      int    // of a System V shared memory segment
	Hold     int    // ms to keep what was taken
}

// Report is what came of it.
type Report struct {
	OK   bool   // the attack succeeded
	Said string // why it did not
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "attacker:", err)
		os.Exit(1)
	}
}

func run() error {
	runtime.LockOSThread() // some attacks change the thread
	conn, err := wire.NewConn(wire.AuthFD)
	if err != nil {
		return err
	}
	buf := make([]byte, 64<<10)
	n, file, err := conn.RecvFile(buf)
	if err != nil {
		return err
	}
	var o Orders
	if err := json.Unmarshal(buf[:n], &o); err != nil {
		return err
	}
	attack := attacks[o.Attack]
	if attack == nil {
		return errors.New("unknown attack " + o.Attack)
	}
	var r Report
	if err := attack(o, file); err != nil {
		r.Said = err.Error()
	} else {
		r.OK = true
	}
	answer, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if err := conn.SendWait(answer, -1); err != nil {
		return err
	}
	_, _ = conn.Recv(buf) // the test ends us
	return nil
}

// attacks are tried one in a process. file is a read-only descriptor of a file that everybody may write to.
var attacks = map[string]func(o Orders, file int) error{
	"read-shadow": readShadow, "read-secret": readSecret, "open-by-handle": openByHandle,
	"write-outside": writeOutside, "reopen-descriptor": reopenDescriptor, "proc-root": procRoot,
	"core-pattern": corePattern, "kernel-log": kernelLog, "make-device": makeDevice,

	"read-memory": readMemory, "vm-readv": vmReadv, "ptrace": ptrace, "signal": signalVictim,
	"steal-descriptor": stealDescriptor, "shared-memory": sharedMemory, "outlive-core": outliveCore,

	"dial-tcp": dialTCP, "send-udp": sendUDP, "abstract-socket": abstractSocket, "path-socket": pathSocket,
	"netlink": netlink, "raw-socket": rawSocket, "packet-socket": packetSocket,

	"io-uring": ioURing, "keyctl": keyctl, "add-key": addKey, "bpf": bpfMap, "perf-event": perfEvent,
	"userfaultfd": userfaultfd, "unshare": unshareMounts, "new-user-namespace": newUserNamespace,
	"setns": enterNamespace, "mount": mountTmpfs, "chroot": changeRoot,
	"memfd-exec": memfdExec, "state-exec": stateExec,

	"fork-bomb": forkBomb, "memory": takeMemory, "mapped-memory": takeShared, "descriptors": takeDescriptors,
	"fill-disk": fillDisk, "big-file": bigFile, "hidden-file": hiddenFile,
}
