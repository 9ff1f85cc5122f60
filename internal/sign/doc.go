// Package sign decides what a host may believe: signed statements (Open) and releases that two parties name (Verify).
//
// It guarantees that nothing signed is looked at before enough distinct keys of the right role have signed exactly
// those bytes; that a release is believed only when the vendor and the operator name the same digest, length and
// release; that what was seen once is never replaced by something older, whatever the clock says; and that whatever
// it reads is bounded. A refusal is a health.Problem with a stable code.
//
// It follows The Update Framework (TUF) and its Uptane arrangement, reads folders, and knows no network: the
// privileged core verifies with it what an unprivileged process has fetched. Standard library only. Why it is not
// go-tuf that verifies, and how the two are compared: docs/decisions/0008-trust.md.
package sign
