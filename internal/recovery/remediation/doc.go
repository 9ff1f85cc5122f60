// Package remediation decides what a machine believes and does when somebody sends it a fix.
//
// It guarantees that nothing in a fix is looked at before the keys that count have signed exactly those bytes; that a
// fix can only do what the closed list of verbs says, which holds no script and no command; that the organisation's
// fixes need two keys, and a vendor's key can only disable or roll back that vendor's own provider; that no fix is
// applied twice, after a newer one, on another machine than the one it names, for another failure, or after it
// expired; and that the clock, which a machine that does not start cannot trust, is never what a yes rests on. Judge
// is pure: the caller keeps the State and carries out the effects.
package remediation
