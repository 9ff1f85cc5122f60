package sandbox

import (
	"fmt"
	"slices"

	"github.com/elastic/go-seccomp-bpf"
	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/sys/unix"
)

// filterCalls installs the list of allowed system calls. Everything else gets EPERM, or ENOSYS where programs then
// fall back to an older call. Only this thread needs it, because it goes on to execve(2).
func filterCalls(network bool) error {
	policy, err := callPolicy(network)
	if err != nil {
		return fmt.Errorf("seccomp: %w", err)
	}
	if err := seccomp.LoadFilter(seccomp.Filter{Policy: policy}); err != nil {
		return fmt.Errorf("seccomp: %w", err)
	}
	return nil
}

// noCall is ENOSYS in place of EPERM; seccomp(2): the low 16 bits of the action are the error.
const noCall = seccomp.Action(unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS))

// callPolicy is the list for this machine's architecture.
func callPolicy(network bool) (seccomp.Policy, error) {
	info, err := arch.GetInfo("")
	if err != nil {
		return seccomp.Policy{}, err
	}
	// Some calls are of one architecture or of newer kernels only.
	known := func(names []string) []string {
		return slices.DeleteFunc(slices.Clone(names), func(name string) bool {
			_, ok := info.SyscallNames[name]
			return !ok
		})
	}
	allowed := known(allowedCalls)
	return seccomp.Policy{
		DefaultAction: seccomp.ActionErrno,
		Syscalls: []seccomp.SyscallGroup{
			{Names: known(absentCalls), Action: noCall},
			{Names: allowed, NamesWithCondtions: conditions(network), Action: seccomp.ActionAllow},
		},
	}, nil
}

// absentCalls are as if the kernel had none of them: their arguments lie in memory that a filter cannot see (clone3,
// openat2, and sched_setattr, whose slice the core sets), or the mere presence of one is a surface that has been broken
// again and again (io_uring).
var absentCalls = []string{
	"clone3", "openat2", "io_uring_setup", "io_uring_enter", "io_uring_register", "statmount", "listmount",
	"landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self", "map_shadow_stack", "uretprobe",
	"set_mempolicy_home_node", "process_mrelease", "process_madvise", "futex_waitv", "futex_wake", "futex_wait",
	"futex_requeue", "sched_setattr",
}

// namespaceFlags are those of clone(2) that make a namespace. CLONE_NEWTIME is clone3's only.
const namespaceFlags = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC |
	unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET

// conditions are calls of which some uses are allowed. A filter sees 64 bits of an argument of which the kernel often
// takes 32: so values are listed that may pass, never values that may not.
func conditions(network bool) (list []seccomp.NameWithConditions) {
	allow := func(name string, when ...seccomp.Condition) {
		list = append(list, seccomp.NameWithConditions{Name: name, Conditions: when})
	}
	allow("clone", seccomp.Condition{Argument: 0, Operation: seccomp.BitsNotSet, Value: namespaceFlags})
	allow("socket", is(0, unix.AF_UNIX))
	allow("socketpair", is(0, unix.AF_UNIX))
	if network {
		for _, kind := range []uint64{unix.SOCK_STREAM, unix.SOCK_DGRAM} {
			for _, flags := range []uint64{
				0, unix.SOCK_CLOEXEC, unix.SOCK_NONBLOCK, unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK,
			} {
				allow("socket", is(0, unix.AF_INET), is(1, kind|flags))
				allow("socket", is(0, unix.AF_INET6), is(1, kind|flags))
			}
		}
	}
	for _, persona := range []uint64{0, 0xffffffff} { // the usual one, and the question which it is
		allow("personality", is(0, persona))
	}
	for _, option := range []uint64{
		unix.PR_SET_NAME, unix.PR_GET_NAME, unix.PR_GET_PDEATHSIG, unix.PR_SET_DUMPABLE, unix.PR_GET_DUMPABLE,
		unix.PR_GET_KEEPCAPS, unix.PR_GET_SECCOMP, unix.PR_CAPBSET_READ, unix.PR_SET_TIMERSLACK,
		unix.PR_GET_TIMERSLACK, unix.PR_SET_CHILD_SUBREAPER, unix.PR_GET_CHILD_SUBREAPER, unix.PR_SET_NO_NEW_PRIVS,
		unix.PR_GET_NO_NEW_PRIVS, unix.PR_GET_TID_ADDRESS, unix.PR_SET_THP_DISABLE, unix.PR_GET_THP_DISABLE,
		unix.PR_SET_MDWE, unix.PR_GET_MDWE, unix.PR_SET_VMA, unix.PR_GET_AUXV,
	} {
		allow("prctl", is(0, option))
	}
	// To end with its parent a process may ask for; not to be free of it: the core's death must reach everybody.
	allow("prctl", is(0, unix.PR_SET_PDEATHSIG),
		seccomp.Condition{Argument: 1, Operation: seccomp.GreaterThan, Value: 0})
	return list
}

func is(argument uint32, value uint64) seccomp.Condition {
	return seccomp.Condition{Argument: argument, Operation: seccomp.Equal, Value: value}
}

// allowedCalls need no look at their arguments. The first are the ones that a provider makes for every event: the
// filter compares in this order.
var allowedCalls = []string{
	"recvmsg", "sendmsg", "pread64", "close", "futex", "epoll_pwait", "epoll_wait", "read", "write", "lseek", "fstat",
	"nanosleep", "clock_nanosleep", "clock_gettime", "sched_yield", "madvise", "mmap", "munmap", "mprotect",

	// files
	"open", "openat", "creat", "close_range", "stat", "lstat", "newfstatat", "statx", "access", "faccessat",
	"faccessat2", "readlink", "readlinkat", "getdents", "getdents64", "readv", "writev", "preadv", "pwritev",
	"preadv2", "pwritev2", "pwrite64", "sendfile", "splice", "tee", "vmsplice", "copy_file_range", "ftruncate",
	"truncate", "fallocate", "fsync", "fdatasync", "sync_file_range", "fadvise64", "readahead", "mincore", "msync",
	"mkdir", "mkdirat", "rmdir", "unlink", "unlinkat", "rename", "renameat", "renameat2", "link", "linkat", "symlink",
	"symlinkat", "chmod", "fchmod", "fchmodat", "fchmodat2", "chown", "fchown", "lchown", "fchownat", "utime",
	"utimes", "utimensat", "futimesat", "umask", "chdir", "fchdir", "getcwd", "dup", "dup2", "dup3", "fcntl", "flock",
	"ioctl", "statfs", "fstatfs", "getxattr", "lgetxattr", "fgetxattr", "listxattr", "llistxattr", "flistxattr",
	"setxattr", "lsetxattr", "fsetxattr", "removexattr", "lremovexattr", "fremovexattr", "cachestat",
	"inotify_init", "inotify_init1", "inotify_add_watch", "inotify_rm_watch",

	// waiting
	"poll", "ppoll", "select", "pselect6", "epoll_create", "epoll_create1", "epoll_ctl", "epoll_ctl_old",
	"epoll_pwait2", "eventfd", "eventfd2", "pipe", "pipe2", "signalfd", "signalfd4", "timerfd_create",
	"timerfd_settime", "timerfd_gettime", "pause", "restart_syscall",

	// memory
	"brk", "mremap", "mlock", "mlock2", "munlock", "mlockall", "munlockall", "membarrier", "mseal", "pkey_alloc",
	"pkey_free", "pkey_mprotect", "get_mempolicy", "mbind", "set_mempolicy", "shmget", "shmat", "shmdt", "shmctl",
	"semget", "semop", "semtimedop", "semctl", "msgget", "msgsnd", "msgrcv", "msgctl",

	// processes and threads
	"fork", "vfork", "execve", "execveat", "exit", "exit_group", "wait4", "waitid", "kill", "tkill", "tgkill",
	"pidfd_open", "pidfd_send_signal", "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "rt_sigpending",
	"rt_sigtimedwait", "rt_sigqueueinfo", "rt_tgsigqueueinfo", "rt_sigsuspend", "sigaltstack", "set_tid_address",
	"set_robust_list", "get_robust_list", "rseq", "arch_prctl", "gettid", "getpid", "getppid", "getpgid", "getpgrp",
	"setpgid", "getsid", "setsid", "getuid", "geteuid", "getgid", "getegid", "getresuid", "getresgid", "getgroups",
	"setuid", "setgid", "setreuid", "setregid", "setresuid", "setresgid", "setfsuid", "setfsgid", "setgroups",
	"capget", "capset", "getrlimit", "setrlimit", "prlimit64", "getrusage", "times", "getpriority", "setpriority",
	"ioprio_get", "ioprio_set", "sched_getaffinity", "sched_setaffinity", "sched_getparam", "sched_setparam",
	"sched_getscheduler", "sched_setscheduler", "sched_getattr", "sched_get_priority_max",
	"sched_get_priority_min", "sched_rr_get_interval", "getcpu",

	// sockets that were opened by a call that looks at the family
	"connect", "bind", "listen", "accept", "accept4", "sendto", "recvfrom", "sendmmsg", "recvmmsg", "shutdown",
	"getsockname", "getpeername", "getsockopt", "setsockopt",

	// time and the host
	"time", "gettimeofday", "clock_getres", "getitimer", "setitimer", "alarm", "timer_create", "timer_settime",
	"timer_gettime", "timer_getoverrun", "timer_delete", "uname", "sysinfo", "getrandom",
}
