package main

import "fmt"

// validate is the content validator. It holds every instance against the definition, which says 21 fields, and so do
// the instances. That the caller supplies 20 it does not know: this is the logic error.
func validate(in instance) error {
	if want := len(definition()); len(in.criteria) != want {
		return fmt.Errorf("%s: %d fields, want %d", in.name, len(in.criteria), want)
	}
	for i, criterion := range in.criteria {
		if criterion == "" {
			return fmt.Errorf("%s: field %d, %s, is empty: write %s for any", in.name, i+1, definition()[i], wildcard)
		}
	}
	return nil
}
