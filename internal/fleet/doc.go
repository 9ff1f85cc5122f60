// Package fleet is the control plane: it puts store, identity, access and the conductor of rollouts behind one HTTPS
// listener.
//
// It guarantees that every call passes the one table of package access before anything reads it; that bodies, time,
// connections and queues are bounded; that nothing is granted before it is stored; and that a control plane which is
// down, slow or restarted changes nothing on any host: hosts keep what they have.
package fleet
