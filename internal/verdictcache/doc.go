// Package verdictcache remembers how providers voted on versions of objects.
//
// It decides nothing and trusts nothing: a vote that is put in is given back only under the very same key, in the epoch
// in which it was put in, and until it expires. Whether a vote may be remembered at all, because no writer could have
// changed the object meanwhile, is the business of whoever puts it in. All of it is bounded.
package verdictcache
