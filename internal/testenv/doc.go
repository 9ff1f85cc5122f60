// Package testenv tells a test what the machine can do and gives it a safe place to do it.
//
// It guarantees: a capability is probed by doing it, once in a process; a test that lacks one skips with a
// line that begins with "NEEDS", or fails where the lane promised it; a file system is mounted only in a
// private mount namespace; a test that listens to the kernel cannot hang the host, because its watchdog
// frees what waits.
//
// Environment: KEEPOUT_LANE says what the machine promises (see Need). KEEPOUT_PARENT_MNTNS is set by
// PrivateMounts and by nobody else.
package testenv
