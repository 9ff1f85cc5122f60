package sign

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
)

// canonical returns the canonical form of a JSON value: names sorted, no spaces, whole numbers, and in strings only
// the quote and the backslash escaped. TUF signs that form. Control characters are refused: in canonical form they
// would stand there bare, and the bytes that were verified could not be read again.
func canonical(raw []byte) ([]byte, error) {
	var v any
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	if err := dec.Decode(&v); err != nil {
		return nil, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows the JSON value")
	}
	return appendCanonical(make([]byte, 0, len(raw)), v)
}

func appendCanonical(out []byte, v any) (_ []byte, err error) {
	switch v := v.(type) {
	case nil:
		return append(out, "null"...), nil
	case bool:
		return fmt.Appendf(out, "%t", v), nil
	case json.Number:
		if _, err := v.Int64(); err != nil {
			return nil, fmt.Errorf("the number %s is not a whole one of 64 bits", v)
		}
		return append(out, v...), nil
	case string:
		return appendCanonicalString(out, v)
	case []any:
		out = append(out, '[')
		for i, e := range v {
			if i > 0 {
				out = append(out, ',')
			}
			if out, err = appendCanonical(out, e); err != nil {
				return nil, err
			}
		}
		return append(out, ']'), nil
	case map[string]any:
		out = append(out, '{')
		for i, name := range slices.Sorted(maps.Keys(v)) {
			if i > 0 {
				out = append(out, ',')
			}
			if out, err = appendCanonicalString(out, name); err != nil {
				return nil, err
			}
			if out, err = appendCanonical(append(out, ':'), v[name]); err != nil {
				return nil, err
			}
		}
		return append(out, '}'), nil
	default:
		return nil, fmt.Errorf("a JSON value of type %T", v)
	}
}

func appendCanonicalString(out []byte, s string) ([]byte, error) {
	out = append(out, '"')
	for i := range len(s) {
		switch c := s[i]; {
		case c < ' ':
			return nil, fmt.Errorf("the control character U+%04X in a string", c)
		case c == '"' || c == '\\':
			out = append(out, '\\', c)
		default:
			out = append(out, c)
		}
	}
	return append(out, '"'), nil
}

// decodeStrict reads exactly one JSON value without unknown fields.
func decodeStrict(raw []byte, into any) error {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows the JSON value")
	}
	return nil
}
