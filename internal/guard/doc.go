// Package guard is the small parent of the core. It holds the permission group, so that the core's end does not lift
// the protection, watches the core's progress, and answers the kernel whenever the core cannot: while there is none,
// and from the moment at which one has made no progress for most of the stall limit.
//
// It never looks at an event beyond the descriptors in it, opens no file once it runs, allocates nothing while it
// answers, and is locked in memory: nothing that it needs can itself wait for an answer. It allows everything, for it
// cannot tell what no host can do without from the rest (docs/decisions/0007-guard.md).
package guard
