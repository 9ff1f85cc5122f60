package boot

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
)

// Size is the size of each copy of the state, in bytes. It never changes, so that a copy can be written anew in place:
// on FAT that changes neither the folder nor the allocation table, and it works on a full disk.
const Size = 16 << 10

// Version of the format.
const formatVersion = 1

// ErrVersion matches (errors.Is) the error of a state that a newer program wrote.
var ErrVersion = errors.New("the format is of another version")

// ErrEmpty matches (errors.Is) the error of a copy that was never written.
var ErrEmpty = errors.New("empty")

// header is the first line of a copy; the state is the second, and spaces fill the rest, so that jq and a person can
// read it. Sum is the CRC-32C of the header without it, and of the state.
type header struct {
	Version  int    `json:"version"`
	Sequence uint64 `json:"sequence"`
	Length   int    `json:"length"`
	Sum      string `json:"crc32c,omitempty"`
}

func (h header) sum(body []byte) string {
	table := crc32.MakeTable(crc32.Castagnoli)
	crc := crc32.Checksum(fmt.Appendf(nil, "%d %d %d\n", h.Version, h.Sequence, h.Length), table)
	return fmt.Sprintf("%08x", crc32.Update(crc, table, body))
}

// Encode gives one copy, of exactly Size bytes. The sequence number is the previous one plus one. A state that Check
// accepts always fits.
func Encode(s *State, sequence uint64) ([]byte, error) {
	if err := s.Check(); err != nil {
		return nil, fmt.Errorf("encode boot state: %w", err)
	}
	body, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("encode boot state: %w", err)
	}
	return seal(body, sequence, Size)
}

// seal puts a header before body and fills up to size bytes.
func seal(body []byte, sequence uint64, size int) ([]byte, error) {
	h := header{Version: formatVersion, Sequence: sequence, Length: len(body)}
	h.Sum = h.sum(body)
	line, err := json.Marshal(h)
	if err != nil {
		return nil, fmt.Errorf("encode header: %w", err)
	}
	out := make([]byte, 0, size)
	out = append(append(append(append(out, line...), '\n'), body...), '\n')
	if len(out) > size {
		return nil, fmt.Errorf("%d bytes do not fit into %d", len(out), size)
	}
	fill := bytes.Repeat([]byte{' '}, size-len(out))
	if len(fill) > 0 {
		fill[len(fill)-1] = '\n'
	}
	return append(out, fill...), nil
}

// unseal returns the body and the sequence number of what seal made. What follows the body does not matter.
func unseal(data []byte, size int) ([]byte, uint64, error) {
	if len(bytes.Trim(data, "\x00 \n")) == 0 {
		return nil, 0, ErrEmpty
	}
	line, rest, ok := bytes.Cut(data[:min(len(data), size)], []byte{'\n'})
	if !ok {
		return nil, 0, errors.New("no header")
	}
	var h header
	if err := json.Unmarshal(line, &h); err != nil {
		return nil, 0, fmt.Errorf("header: %w", err)
	}
	switch {
	case h.Version != formatVersion:
		return nil, 0, fmt.Errorf("%w: %d", ErrVersion, h.Version)
	case h.Length < 0 || h.Length > len(rest):
		return nil, 0, errors.New("it is torn")
	case h.Sum != h.sum(rest[:h.Length]):
		return nil, 0, errors.New("the checksum is wrong")
	}
	return rest[:h.Length], h.Sequence, nil
}

// Decode reads one copy. The error says what is wrong with it; the state is then not to be used.
func Decode(data []byte) (State, uint64, error) {
	body, sequence, err := unseal(data, Size)
	if err != nil {
		return State{}, 0, err
	}
	s := New()
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&s); err != nil {
		return State{}, 0, fmt.Errorf("state: %w", err)
	}
	if err := s.Check(); err != nil {
		return State{}, 0, fmt.Errorf("state: %w", err)
	}
	return s, sequence, nil
}

// Picked is what Pick found.
type Picked struct {
	State    State
	Sequence uint64 // of State; 0 when neither copy is usable
	// Write is the copy to write next, 0 or 1: never the one that State came from.
	Write int
	// Lost says that neither copy is usable although at least one was written once: State is a new one.
	Lost bool
	// Errs says what is wrong with each copy.
	Errs [2]error
}

// Pick takes the newer of two copies; nil stands for one that is not there. It has an answer for whatever it is given:
// without a usable copy it is the state of a machine of which nothing is known.
func Pick(a, b []byte) Picked {
	var p Picked
	var states [2]State
	var sequences [2]uint64
	for i, data := range [][]byte{a, b} {
		states[i], sequences[i], p.Errs[i] = Decode(data)
	}
	switch okA, okB := p.Errs[0] == nil, p.Errs[1] == nil; {
	case okA && (!okB || sequences[0] >= sequences[1]):
		p.State, p.Sequence, p.Write = states[0], sequences[0], 1
	case okB:
		p.State, p.Sequence, p.Write = states[1], sequences[1], 0
	default:
		p.State = New()
		p.Lost = !errors.Is(p.Errs[0], ErrEmpty) || !errors.Is(p.Errs[1], ErrEmpty)
	}
	return p
}

// CrumbSize is the size of the crumb's file, in bytes: one sector, written in place.
const CrumbSize = 512

// EncodeCrumb gives the content of the crumb's file, of exactly CrumbSize bytes. Texts that do not fit are shortened.
func EncodeCrumb(c Crumb) ([]byte, error) {
	body, err := json.Marshal(c.bound())
	if err != nil {
		return nil, fmt.Errorf("encode crumb: %w", err)
	}
	return seal(body, 0, CrumbSize)
}

// DecodeCrumb reads a crumb; one that is torn or was never written is an error and means that nothing is known.
func DecodeCrumb(data []byte) (Crumb, error) {
	body, _, err := unseal(data, CrumbSize)
	if err != nil {
		return Crumb{}, err
	}
	var c Crumb
	if err := json.Unmarshal(body, &c); err != nil {
		return Crumb{}, fmt.Errorf("crumb: %w", err)
	}
	return c.bound(), nil
}
