// Package durable writes the files that must survive a power cut.
//
// It guarantees: after WriteFile returns nil, the new content is on the disk under its name; whatever
// happens before that (a crash, a full disk, a power cut), a reader finds either the whole old content or
// the whole new content, never a mixture. The same holds for a folder that is filled under a temporary name
// (CreateFileOn, SyncDir) and then moved (MoveOn). And it guarantees that at most one process owns a state
// folder (Lock).
//
// On Windows the same is asked of the system in its own words, and was not tried there.
//
// What ends with On takes the disk it writes to, so that the power can be cut in a test.
package durable
