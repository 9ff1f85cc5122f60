// Package sensor turns the kernel's file events into questions.
//
// It reads the permission group on one thread per processor, identifies the object and the actor, and hands
// each question to a Judge that must not block. What needs no question is answered here at once and counted:
// the platform's own acts, the providers', the vital set, the second half of an exec, everything outside the
// watched paths, and objects whose content cannot be pinned down. Each answer is given exactly once.
package sensor
