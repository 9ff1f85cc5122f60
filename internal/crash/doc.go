// Package crash is the account of a machine that could not start: what the recovery environment found, suspected, did
// and left behind, as data, and the words in which it is told.
//
// It guarantees that the screen, the serial line, keepout crash show and the login notice tell the same story,
// because all of them take it from Tell; that a suspect is never named without the reason for the suspicion; and that
// nothing in a record, which may come from a damaged disk or quote a vendor's text, is longer than its bound or holds
// a character that moves a cursor, hides text or turns its direction.
package crash
