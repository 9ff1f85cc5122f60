// Package control is the admin socket: one JSON object a line, request and reply (docs/control.md).
//
// The socket's file mode decides who may connect: root, and the group keepout where it exists. Requests are
// bounded in size and connections in number; a client that does not read is disconnected.
package control
