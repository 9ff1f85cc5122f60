// Package journal keeps the verdict trail and the change journal: who did what, what was decided and why,
// and what happened to the platform itself.
//
// It guarantees: every line is one OCSF object in valid JSON, whatever bytes a path holds; the lines of a
// folder form one SHA-256 chain over all files and restarts, so that an edit in the middle shows (Verify);
// disk use is bounded; a caller never waits for the disk; and what could not be written is counted and, as
// soon as there is room, said in the journal itself. It does not guarantee the last second before a power
// cut. docs/journal.md describes the format.
package journal
