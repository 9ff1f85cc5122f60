// Package demo shows the platform at work on the machine at hand: keepout demo.
//
// It guarantees: whatever it mounts, marks, starts, ends or writes is its own. The file system it watches is
// a tmpfs in a mount namespace of its own, so the kernel takes mount and marks away with the last process,
// however that ends. Every step looks at what really happened, and one that did not show what it says fails
// the whole. In the end it looks for what could be left, and says so if there is anything.
package demo
