// Package digest computes the SHA-256 of a content, once for each version of an object, and remembers it in a
// bounded table.
//
// Nothing here opens a file or moves the position of a descriptor that others share. Cached never waits for a disk; Of
// may, and can be stopped.
package digest
