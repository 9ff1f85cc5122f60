// Package bootguard is the first unit of a boot: it counts the boot, decides how it runs, and tells the core. Later it
// judges the boot, and says when it ends in order.
//
// It guarantees that whatever it finds or cannot write, the machine goes on booting: every error becomes a text in the
// instruction to the core, never a failed unit that others depend on. It never restarts the machine unless the count
// that led to this is on the disk. It is a small program of its own, without what a core needs, because it runs before
// everything else and at each boot.
package bootguard
