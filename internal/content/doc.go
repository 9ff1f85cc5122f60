// Package content checks a provider's content (signatures, rules, lists) against the schema in its manifest, before
// any engine loads it: content is code, and a file that an engine was not built for is refused like a program that
// does not compile.
//
// A check reads every byte once, in bounded memory and time, starts no goroutine, follows no link out of the content's
// folder, opens nothing but regular files, and never runs anything of the provider. It tells all that is wrong, up to a
// bound, each with file, line, column, what was found, why that is wrong and what to do.
//
// What it accepts has the declared shape; that the engine survives it is for the throw-away load to show.
package content
