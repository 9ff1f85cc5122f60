// Package netlab makes network namespaces on one machine and joins them with veth pairs: a network of loopback and veth
// only, with no way out.
//
// It guarantees that the machine's own network is not touched, and that nothing is left once a star is closed and the
// processes in it have ended: a namespace has no name and no file, and its interfaces end with it.
package netlab
