// Package fanotify is the typed binding to the kernel's fanotify interface: groups, marks, events, answers.
//
// It decides nothing. Every privilege of the platform over other processes' opens is exercised here and
// nowhere else (internal/tidy holds that). Kernel facts are from fanotify(7), fanotify_init(2) and
// fanotify_mark(2); those that the manual does not state are proved in test/root.
package fanotify
