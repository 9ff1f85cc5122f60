// Package link is what the guard and the core share: the kernel's group, a page of memory in which the core shows
// its progress, and a socket on which they agree who answers. At any moment exactly one of them reads the group.
package link
