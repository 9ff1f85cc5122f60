package doctor

import (
	"fmt"
	"slices"
	"strings"
)

// The oldest kernel with permission events as they are used here: FAN_REPORT_PIDFD came with Linux 5.15.
const (
	minMajor = 5
	minMinor = 15
)

// checkKernel looks at what the platform and its cages take from the kernel.
func checkKernel(f *facts) []Finding {
	n := notes{section: Kernel}
	k := &f.kernel
	var major, minor int
	if _, err := fmt.Sscanf(k.release, "%d.%d", &major, &minor); err != nil {
		n.info("kernel.release", fmt.Sprintf("release %q cannot be read as a version", k.release))
	} else if major < minMajor || major == minMajor && minor < minMinor {
		n.failure("kernel.release", "KO-1811", "Linux "+k.release+" is too old",
			fmt.Sprintf("use Linux %d.%d or later", minMajor, minMinor))
	} else {
		n.ok("kernel.release", "Linux "+k.release)
	}
	permissionEvents(&n, f)
	cageFeatures(&n, k)
	switch {
	case k.lsmErr != nil:
		n.info("kernel.bpf_lsm", "BPF LSM: not known: "+k.lsmErr.Error())
	case slices.Contains(strings.Split(k.lsm, ","), "bpf"):
		n.info("kernel.bpf_lsm", "BPF LSM: listed by the kernel, but whether it loads was not tried; tier B does without")
	default:
		n.info("kernel.bpf_lsm", "BPF LSM: not active; tier B does without")
	}
	return n.all
}

func permissionEvents(n *notes, f *facts) {
	k := &f.kernel
	switch {
	case k.eventsUntry == "" && k.events == nil:
		n.ok("kernel.permission_events", "permission events with pidfds: a group could be made")
	case k.eventsUntry == "":
		n.failure("kernel.permission_events", "KO-1811", "no permission events: "+k.events.Error(),
			"run as root in the first user namespace, on a kernel with CONFIG_FANOTIFY_ACCESS_PERMISSIONS=y")
	case f.status != nil:
		n.ok("kernel.permission_events", "permission events: the running core has them")
	default:
		n.info("kernel.permission_events", "permission events: not tried: "+k.eventsUntry)
	}
}

func cageFeatures(n *notes, k *kernelFacts) {
	if k.landlockErr != nil {
		n.warning("kernel.landlock", "KO-1812", "no Landlock: "+k.landlockErr.Error(),
			"add landlock to the lsm= list of the kernel's command line; cages are weaker without it")
	} else {
		n.ok("kernel.landlock", fmt.Sprintf("Landlock, ABI %d", k.landlock))
	}
	switch {
	case k.seccompErr != nil:
		n.warning("kernel.seccomp", "KO-1812", "no seccomp filters: "+k.seccompErr.Error(),
			"use a kernel with CONFIG_SECCOMP_FILTER=y; cages are weaker without it")
	case !strings.Contains(k.seccomp, "errno"):
		n.warning("kernel.seccomp", "KO-1812", "seccomp cannot refuse calls: its actions are "+k.seccomp,
			"use a kernel with CONFIG_SECCOMP_FILTER=y; cages are weaker without it")
	default:
		n.ok("kernel.seccomp", "seccomp filters")
	}
	switch {
	case k.usernsErr != nil:
		n.warning("kernel.user_namespaces", "KO-1812", "no user namespaces: "+k.usernsErr.Error(),
			"use a kernel with CONFIG_USER_NS=y; cages are weaker without it")
	case k.userns == 0:
		n.warning("kernel.user_namespaces", "KO-1812", "user namespaces are switched off",
			"sysctl user.max_user_namespaces=1024; cages are weaker without them")
	default:
		n.ok("kernel.user_namespaces", "user namespaces")
	}
	switch k.cgroup {
	case 0:
		n.info("kernel.cgroups", "no cgroups are mounted: memory and processors of providers are bounded by rlimits only")
	default:
		n.ok("kernel.cgroups", fmt.Sprintf("cgroups, version %d", k.cgroup))
	}
}
