//go:build !unix

package folder

// dontWait is nothing where a folder has no pipes.
const dontWait = 0
