// Package boot decides how a machine starts after it did not start well. It is pure: no clock, no I/O; what happened
// comes in, and what is to be done goes out as effects.
//
// The ladder has four rungs: as configured, with last-known-good content, in safe mode, the recovery environment. A
// boot that ends neither good nor in order is a failure, and the next boot begins one rung higher. The package
// guarantees, whatever happens in whatever order: a row of failures ends at the menu within MaxBoots boots, and there
// it stays; a good boot takes everything back that failures did; a clean shutdown counts as nothing; the same input
// twice in one boot counts once; a state that cannot be read is replaced by one that boots the machine. The property
// tests hold that.
//
// The same state is read and written by bootguard in the running system and by the recovery environment, in two
// copies with checksums (Encode, Pick).
package boot
