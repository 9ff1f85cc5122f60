// Package wire is the provider protocol in Go: packets, limits, versions and sockets.
//
// One packet is one protobuf message of at most MaxPacket bytes on a SOCK_SEQPACKET socket; a file travels
// beside it as a descriptor (SCM_RIGHTS). The text is docs/protocol.md and the vectors in testdata/vectors
// bind it. Every decoder here treats its input as hostile: lengths first, then shape, then values.
package wire
