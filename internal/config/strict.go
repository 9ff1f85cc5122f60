package config

// Source is a strictly read file of another kind, that knows where everything stands in it.
type Source struct{ d *document }

// ReadStrict reads the YAML file at path into v, a pointer to a struct with yaml tags, as strictly as a configuration:
// what is unknown, of the wrong kind or there twice is an error with file, line and column, all at once. The errors
// have the given code, and say as the next step what advice says.
func ReadStrict(path, code, advice string, v any) (*Source, error) {
	d, err := decodeWith(path, code, advice, v)
	if err != nil {
		return nil, err
	}
	return &Source{d}, nil
}

// At makes an error about the value at a YAML path, for example "$.rollouts[0].name".
func (s *Source) At(path, what, fix string) error { return s.d.at(path, s.d.code, what, fix) }
