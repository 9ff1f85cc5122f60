// Package playground lets a command show the real platform at work on this machine without touching it: in a folder of
// its own, on a tmpfs of its own, in a mount namespace of its own.
//
// The command runs itself a second time in that namespace, and waits. Whatever happens to the second process, nothing
// is left behind: the first reaps every process that it started, removes the folder, and says so if it cannot. Both
// hold a lock on the folder, by which a later command knows what nobody needs any more.
package playground
