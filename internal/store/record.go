package store

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/keepout-security/keepout/internal/rollback"
)

// recordVersion begins the first line of a copy: "keepout-slots 1 <generation> <SHA-256 of generation and body>".
const recordVersion = "keepout-slots 1"

// maxRecord bounds what is read of one copy, in bytes. The state's lists are bounded, so that it never comes near.
const maxRecord = 1 << 20

// record is one copy of a provider's state. The higher generation is the newer one.
type record struct {
	generation uint64
	state      rollback.State
}

func (r record) encode() ([]byte, error) {
	body, err := json.Marshal(r.state)
	if err != nil {
		return nil, fmt.Errorf("encode slots: %w", err)
	}
	body = append(body, '\n')
	head := fmt.Sprintf("%s %d %x\n", recordVersion, r.generation, checksum(r.generation, body))
	if len(head)+len(body) > maxRecord {
		return nil, errors.New("encode slots: state is too large")
	}
	return append([]byte(head), body...), nil
}

func checksum(generation uint64, body []byte) [sha256.Size]byte {
	h := sha256.New()
	fmt.Fprintf(h, "%d\n", generation)
	h.Write(body)
	return [sha256.Size]byte(h.Sum(nil))
}

// decodeRecord reads a copy. It accepts nothing whose checksum is wrong, or that no step could have made.
func decodeRecord(text []byte, provider string) (r record, err error) {
	head, body, ok := bytes.Cut(text, []byte("\n"))
	fields := strings.Split(string(head), " ")
	if !ok || len(fields) != 4 || fields[0]+" "+fields[1] != recordVersion {
		return r, fmt.Errorf("begins with %.40q", head)
	}
	if r.generation, err = strconv.ParseUint(fields[2], 10, 64); err != nil {
		return r, fmt.Errorf("generation %.40q", fields[2])
	}
	if fields[3] != fmt.Sprintf("%x", checksum(r.generation, body)) {
		return r, errors.New("checksum does not match")
	}
	if err := json.Unmarshal(body, &r.state); err != nil {
		return r, fmt.Errorf("decode: %w", err)
	}
	if r.state.Provider != provider {
		return r, fmt.Errorf("is of the provider %.40q", r.state.Provider)
	}
	return r, r.state.Check()
}
