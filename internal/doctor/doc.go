// Package doctor proves protection instead of claiming it.
//
// For each provider it lays out a canary on each watched file system, opens it and executes it as any program would,
// and looks up the provider's vote: a provider that runs but misses its canary is an error, in every mode. The votes
// count, not what became of the open. Around that it looks at kernel, cages, disk, clock, descriptors and the socket.
//
// It guarantees: whatever could not be checked is said, with the reason, and never passed over; canaries are removed
// however a run ends, but for SIGKILL, and the next run removes those of the last; nothing is executed that the kernel
// could take for a program; and what is a problem is decided by pure functions over the facts that were gathered.
package doctor
