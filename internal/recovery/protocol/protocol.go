// Package protocol is what the recovery environment and the control plane say to each other, over HTTPS: the paths, the
// messages and their bounds. TLS keeps strangers from listening; what a machine believes is decided by the signatures
// inside, so nothing here is trusted.
//
//	POST /recovery/v1/bundles   a diagnostics bundle; the answer is 204. The digest is the bundle's name.
//	POST /recovery/v1/fix       FixRequest → FixResponse. The request says also: this machine is in recovery now.
//	POST /recovery/v1/reports   Report; the answer is 204.
package protocol

import (
	"encoding/json"
	"fmt"
	"mime"
	"regexp"
	"time"
)

// Where the messages go, below the server's address.
const (
	BundlePath = "/recovery/v1/bundles"
	FixPath    = "/recovery/v1/fix"
	ReportPath = "/recovery/v1/reports"
)

// ContentType is that of every message but a bundle. An answer without it is from somebody else: a proxy, a captive
// portal's sign-in page.
const ContentType = "application/vnd.keepout.recovery.v1+json"

// BundleType is the content type of a bundle.
const BundleType = "application/vnd.keepout.bundle.v1"

// Headers of a bundle.
const (
	MachineHeader = "Keepout-Machine"
	DigestHeader  = "Keepout-Digest"
	TestHeader    = "Keepout-Test" // "true" in a rehearsal
)

// Bounds, in bytes.
const (
	MaxBundle   = 256 << 10
	MaxRequest  = 16 << 10
	MaxResponse = 1 << 20
)

// FixRequest asks for a fix.
type FixRequest struct {
	Version int       `json:"version"` // 1
	Machine string    `json:"machine"` // a pseudonym
	Digest  string    `json:"digest"`  // of this visit's bundle, SHA-256 in hexadecimal
	Test    bool      `json:"test,omitempty"`
	Attempt int       `json:"attempt"`
	Visits  int       `json:"visits"` // recoveries since the last good boot
	Suspect string    `json:"suspect,omitempty"`
	Time    time.Time `json:"time,omitzero"` // by the machine's clock, which may be wrong
}

// Status is what a server has for a machine.
type Status string

// The statuses.
const (
	HasFix Status = "fix"
	NoFix  Status = "none"
)

// FixResponse answers a FixRequest.
type FixResponse struct {
	Version  int    `json:"version"` // 1
	Status   Status `json:"status"`
	Envelope []byte `json:"envelope,omitempty"` // the signed remediation, as it was signed
	Retry    int    `json:"retry_seconds,omitempty"`
	// Revocations are signed statements that fixes are taken back; a machine looks at MaxRevocations of them.
	Revocations [][]byte `json:"revocations,omitempty"`
}

// Report tells what became of a visit.
type Report struct {
	Version int    `json:"version"` // 1
	Machine string `json:"machine"`
	Digest  string `json:"digest"`
	Test    bool   `json:"test,omitempty"`
	Source  string `json:"source"` // server, local, person or test
	Fix     string `json:"fix,omitempty"`
	Remedy  string `json:"remedy"` // for people
	Trouble string `json:"trouble,omitempty"`
}

var digest = regexp.MustCompile(`^[0-9a-f]{64}$`)

// Check reports what is wrong with a request.
func (r *FixRequest) Check() error {
	switch {
	case r.Version != 1:
		return fmt.Errorf("version %d is not known", r.Version)
	case r.Machine == "" || len(r.Machine) > 128:
		return fmt.Errorf("machine %.40q is no pseudonym", r.Machine)
	case !digest.MatchString(r.Digest):
		return fmt.Errorf("digest %.80q is no SHA-256 in hexadecimal", r.Digest)
	}
	return nil
}

// DecodeRequest reads a request of at most MaxRequest bytes.
func DecodeRequest(data []byte) (FixRequest, error) {
	var r FixRequest
	if len(data) > MaxRequest {
		return r, fmt.Errorf("%d bytes, limit %d", len(data), MaxRequest)
	}
	if err := json.Unmarshal(data, &r); err != nil {
		return FixRequest{}, fmt.Errorf("decode the request: %w", err)
	}
	if err := r.Check(); err != nil {
		return FixRequest{}, err
	}
	return r, nil
}

// DecodeResponse reads an answer that came with a content type. The envelope in it is not verified.
func DecodeResponse(contentType string, data []byte) (FixResponse, error) {
	var r FixResponse
	if kind, _, err := mime.ParseMediaType(contentType); err != nil || kind != ContentType {
		return r, fmt.Errorf("it answered with %.60q, as no Keepout server does: "+
			"the network may want somebody to sign in first", contentType)
	}
	if len(data) > MaxResponse {
		return r, fmt.Errorf("its answer is longer than %d bytes", MaxResponse)
	}
	if err := json.Unmarshal(data, &r); err != nil {
		return FixResponse{}, fmt.Errorf("its answer cannot be read: %w", err)
	}
	switch {
	case r.Version != 1:
		return FixResponse{}, fmt.Errorf("its answer has version %d, which is not known", r.Version)
	case r.Status != HasFix && r.Status != NoFix:
		return FixResponse{}, fmt.Errorf("its answer has status %.40q, which is not known", r.Status)
	case r.Status == HasFix && len(r.Envelope) == 0:
		return FixResponse{}, fmt.Errorf("its answer promises a fix and has none")
	}
	return r, nil
}
