package protocol

import (
	"encoding/json"
	"fmt"
)

// Bounds of revocations: how many travel with an answer, and how many bytes one has. All of them fit into MaxResponse.
const (
	MaxRevocations = 16
	MaxRevocation  = 32 << 10
)

// RevocationsFile is the file in a host's staging folder with the signed statements by which fixes were taken back, as
// the control plane sent them last. keepout-fetch writes it; bootguard believes nothing of it before it was verified.
const RevocationsFile = "revocations.json"

// MaxRevocationsFile bounds that file, in bytes.
const MaxRevocationsFile = MaxResponse

type revocationsText struct {
	Version     int      `json:"version"` // 1
	Revocations [][]byte `json:"revocations"`
}

// EncodeRevocations is the text of a RevocationsFile. What is too large, or too much, is left out.
func EncodeRevocations(list [][]byte) ([]byte, error) {
	text := revocationsText{Version: 1, Revocations: [][]byte{}}
	for _, sealed := range list {
		if len(sealed) <= MaxRevocation && len(text.Revocations) < MaxRevocations {
			text.Revocations = append(text.Revocations, sealed)
		}
	}
	data, err := json.Marshal(text)
	if err != nil {
		return nil, fmt.Errorf("write the revocations: %w", err)
	}
	return data, nil
}

// DecodeRevocations reads what EncodeRevocations wrote, or somebody in its place.
func DecodeRevocations(data []byte) ([][]byte, error) {
	var text revocationsText
	if len(data) > MaxRevocationsFile {
		return nil, fmt.Errorf("the revocations have more than %d bytes", MaxRevocationsFile)
	}
	if err := json.Unmarshal(data, &text); err != nil {
		return nil, fmt.Errorf("the revocations cannot be read: %w", err)
	}
	if text.Version != 1 || len(text.Revocations) > MaxRevocations {
		return nil, fmt.Errorf("the revocations have version %d and are %d; version 1 and at most %d are known",
			text.Version, len(text.Revocations), MaxRevocations)
	}
	for _, sealed := range text.Revocations {
		if len(sealed) > MaxRevocation {
			return nil, fmt.Errorf("a revocation has %d bytes, at most %d are read", len(sealed), MaxRevocation)
		}
	}
	return text.Revocations, nil
}
