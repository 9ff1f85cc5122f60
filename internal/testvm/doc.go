// Package testvm boots virtual machines for tests: software emulation, Debian's own kernels and boot loaders.
//
// It guarantees: a machine ends with its test and is ended by its own process id; every wait has a deadline and its
// failure shows what the serial line said; what a test leaves behind (serial log, screenshots) lies in
// bin/vm-artefacts; packages are fetched once with the distribution's own tools and kept outside the tree, in
// $XDG_CACHE_HOME/keepout-vm (~/.cache/keepout-vm).
package testvm
