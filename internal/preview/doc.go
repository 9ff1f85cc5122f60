// Package preview runs a fleet of real hosts and a real control plane on one machine: for "keepout fleet preview",
// which shows a newcomer a rollout that stops itself, and for the tests of the same.
//
// Each host is a guard, a core, an engine and keepout-fetch as processes of their own, with a file system and a network
// namespace of its own; the control plane is keepout-fleet; vendor and operator make their keys on the spot. A Fleet
// guarantees that it mounts only in a private mount namespace, that it touches no network of the machine, and that
// everything it started ends with the process that made it, even when that is killed.
package preview
