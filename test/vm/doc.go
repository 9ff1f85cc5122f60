// Package vm holds the tests that boot whole machines. "make test-vm" runs them; bin/vm-artefacts keeps what they saw.
package vm
