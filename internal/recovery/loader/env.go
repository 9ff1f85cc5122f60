package loader

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// EnvSize is the size of an environment block, in bytes. GRUB writes one back in place, so that it must have been
// made in full, without holes (save_env refuses a sparse file).
const EnvSize = 1024

// envSignature is the first line of a block (grub/lib/envblk.h).
const envSignature = "# GRUB Environment Block\n"

// Env is a GRUB environment block: names and values, in the order of the file.
type Env struct{ pairs [][2]string }

// Get returns a value, "" when the name is not there.
func (e *Env) Get(name string) string {
	for _, p := range e.pairs {
		if p[0] == name {
			return p[1]
		}
	}
	return ""
}

// Set sets a value; "" removes the name.
func (e *Env) Set(name, value string) {
	i := slices.IndexFunc(e.pairs, func(p [2]string) bool { return p[0] == name })
	switch {
	case value == "" && i >= 0:
		e.pairs = slices.Delete(e.pairs, i, i+1)
	case value == "":
	case i >= 0:
		e.pairs[i][1] = value
	default:
		e.pairs = append(e.pairs, [2]string{name, value})
	}
}

// ParseEnv reads a block. Bytes behind the last line are filling.
func ParseEnv(block []byte) (Env, error) {
	var e Env
	rest, ok := bytes.CutPrefix(block, []byte(envSignature))
	if !ok || len(block) != EnvSize {
		return e, errors.New("it is no GRUB environment block")
	}
	for len(rest) > 0 && rest[0] != '#' {
		line, after, ok := cutLine(rest)
		if !ok {
			return Env{}, errors.New("a line of the GRUB environment block has no end")
		}
		name, value, ok := strings.Cut(line, "=")
		if !ok || !envName(name) {
			return Env{}, fmt.Errorf("%q is no line of a GRUB environment block", line)
		}
		e.Set(name, value)
		rest = after
	}
	return e, nil
}

// cutLine takes one line off, without its end and without the backslashes that GRUB puts before a backslash and an
// end of line.
func cutLine(b []byte) (line string, rest []byte, ok bool) {
	var out strings.Builder
	for i := 0; i < len(b); i++ {
		switch {
		case b[i] == '\n':
			return out.String(), b[i+1:], true
		case b[i] == '\\' && i+1 < len(b):
			i++
			out.WriteByte(b[i])
		default:
			out.WriteByte(b[i])
		}
	}
	return "", nil, false
}

func envName(name string) bool {
	return name != "" && !strings.ContainsAny(name, "#\\\n =")
}

// Encode gives the block, of exactly EnvSize bytes.
func (e *Env) Encode() ([]byte, error) {
	var b bytes.Buffer
	b.WriteString(envSignature)
	escape := strings.NewReplacer("\\", "\\\\", "\n", "\\\n")
	for _, p := range e.pairs {
		if !envName(p[0]) {
			return nil, fmt.Errorf("%q is no name for a GRUB environment block", p[0])
		}
		b.WriteString(p[0] + "=" + escape.Replace(p[1]) + "\n")
	}
	if b.Len() > EnvSize {
		return nil, fmt.Errorf("%d bytes do not fit into a GRUB environment block", b.Len())
	}
	b.Write(bytes.Repeat([]byte{'#'}, EnvSize-b.Len()))
	return b.Bytes(), nil
}
