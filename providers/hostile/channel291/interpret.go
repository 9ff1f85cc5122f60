package main

import "strings"

// interpret is the content interpreter: it reports whether the inputs meet all criteria of the instance. The
// criteria say which input to read, and it trusts them.
func interpret(in instance, inputs []string) bool {
	for i, criterion := range in.criteria {
		if criterion == wildcard {
			continue
		}
		if !meets(inputs[i], criterion) { // the 21st of 20: out of bounds
			return false
		}
	}
	return true
}

// meets compares one value; a criterion may begin or end with a wildcard.
func meets(value, criterion string) bool {
	start, open := strings.CutSuffix(criterion, wildcard)
	end, free := strings.CutPrefix(start, wildcard)
	switch {
	case open && free:
		return strings.Contains(value, end)
	case open:
		return strings.HasPrefix(value, start)
	case free:
		return strings.HasSuffix(value, end)
	}
	return value == criterion
}
