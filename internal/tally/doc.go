// Command tally runs the lanes of "make test" and counts what ran.
//
//	tally run   -dir D -lane NAME -- go test -json ...   run one lane, print its failures, leave D/NAME.json
//	tally check -dir D -lane NAME -- go vet ...          the same for a command that only passes or fails
//	tally total -dir D NAME...                           add the lanes up
//
// It guarantees: what did not run is never counted as passed. A package that does not build, a test that
// never ended, a skip that does not say "NEEDS <name>: ", a command that fails without a failing test, and
// a lane that left no result are failures. The last line of the total is "N passed, N failed, N skipped";
// tests with subtests are counted by their subtests, so no work is counted twice. The exit code is 0 only
// without failures.
package main
