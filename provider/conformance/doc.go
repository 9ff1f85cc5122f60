// Package conformance checks that a program speaks the provider protocol (docs/protocol.md) as the platform
// expects it, in whatever language it is written.
//
// It starts the program as the platform does, with a socket on descriptors 3 and 4 and an environment that
// holds only what Command gives, once for each case, and plays the platform's part. It needs no privilege, no
// sensor and no daemon: one Go test that calls Run is enough. What it cannot see from outside, such as a
// provider that reopens a descriptor through /proc, it does not claim to check.
package conformance
