// Package folder reads a folder that somebody else has written, and may still be writing.
//
// It guarantees that nothing outside the folder is opened, whatever links lie in it; that only regular files are handed
// out; and that opening one never waits, as it would for a pipe that nobody writes to. Who reads and who removes can
// keep out of each other's way. Standard library only.
package folder
