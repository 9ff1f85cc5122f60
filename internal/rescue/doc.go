// Package rescue is the recovery environment: what runs instead of the system on a machine that does not start.
//
// It is the init of a small archive that the boot loader starts with the distribution's own kernel. It shows what is
// going on, keeps the panic's text, asks the organisation's server for a fix, writes down for the next boot what that
// fix or the local rule orders, and restarts. It guarantees: plan decides and this package only acts; it mounts one
// file system, the one that the image names, and never the system's root; it runs no other program and has no shell;
// every wait on a disk, a network or a server has a limit; nothing that a server sends is looked at before it is
// verified. Where it cannot write, it does not restart.
package rescue
