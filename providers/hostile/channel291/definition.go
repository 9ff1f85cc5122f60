package main

// wildcard matches any value. The interpreter does not look the value up for it.
const wildcard = "*"

// definition is the template type: what a line of content may be about. It was compiled into the engine when the
// feature was designed.
func definition() []string {
	return []string{
		"type", "path", "comm", "uid", "gid", "pid", "ppid", "token", "size", "mode", "owner", "device", "inode",
		"modified", "changed", "time", "name", "new directory", "new name", "event", "pipe",
	}
}

// instance is one line of content: a criterion for each field of the definition.
type instance struct {
	name     string
	criteria []string
}
