// Package tidy holds the repository's own rules as tests, for what no linter knows: which package may import
// which, where a privilege lives, how names, sizes, documents and their tests fit together.
//
// It guarantees: each rule is one test whose failure says what is wrong, where, and how to put it right;
// each rule that reads source is first tried on a piece of source that breaks it, so that it cannot pass by
// seeing nothing.
package tidy
