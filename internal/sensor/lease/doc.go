// Package lease is the kernel's memory of verdicts on plain opens, and what makes it safe.
//
// An ignore mark lets opens of an object pass without an event. By itself it is no safe memory: a writer whose open it
// let pass may store through a shared mapping, and the mark stays. So a mark is only ever set under a read lease
// (fcntl(2), F_SETLEASE) on the event's own descriptor, which the kernel grants only while nobody has the object open
// for writing, a writable mapping included. It is taken before any provider reads the content. A writer who comes later
// waits inside open(2) or truncate(2) until the lease is given up, and by then the mark is gone: what the providers
// read is what the marked object still holds, always.
//
// What is held is bounded in number, size and time, because it is felt: a file system with held objects is busy for
// umount(8), the space of an unlinked object is not free, and a writer that opens with O_NONBLOCK is refused once.
package lease
