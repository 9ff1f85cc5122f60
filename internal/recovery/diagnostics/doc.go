// Package diagnostics makes the report that a machine sends when it could not start: what it holds, what it must not
// hold, how it is grouped, sealed and kept.
//
// It guarantees that every text of a bundle went through the rules of redaction, a field that somebody adds later
// included; that nothing on the list of known names (the host's, its people's, its machine id) is in a bundle,
// whatever the input; that no bundle is larger than MaxBundle and no parcel larger than MaxParcel, and that what was
// cut is said; that level off makes none; and that a parcel can be read only with the organisation's key, but for a
// header that holds nothing about people. It reads files, and opens no connection.
package diagnostics
