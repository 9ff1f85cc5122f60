// Package bench measures the platform as a whole, on the real kernel, as ratios within one run.
//
// Each benchmark interleaves its variants, because the machine's speed drifts, and reports the median of the
// rounds. The numbers of SPECIFICATION.md are its output: "make bench" compares the platform with everything else,
// "make bench-promises" runs the others, and CI runs all of them once with little work.
package bench
