// Package access says who may call what: one table, and nothing else decides it.
//
// It guarantees that a call which is not in the table is allowed to nobody.
package access

import (
	"slices"
	"strings"

	"github.com/keepout-security/keepout/internal/recovery/protocol"
)

// Role is what a person, or a host, may be.
type Role string

// The roles. Starting takes an operator and, where it matters, a second person as approver; a halter can only stop.
const (
	Viewer   Role = "viewer"
	Operator Role = "operator"
	Approver Role = "approver"
	Halter   Role = "halter"
	Vendor   Role = "vendor" // sees the rollouts and buckets of its own provider, and counts of hosts
	Admin    Role = "admin"  // tokens; and all of the above, but never two persons at once
	Host     Role = "host"   // a machine with a certificate
	Anyone   Role = "anyone" // no proof of anything
)

// People are the roles that a token can have.
func People() []Role { return []Role{Viewer, Operator, Approver, Halter, Vendor, Admin} }

// The services of the API.
const (
	HostService  = "/keepout.fleet.v1.HostService/"
	FleetService = "/keepout.fleet.v1.FleetService/"
)

// Packages is where metadata and packages lie.
const Packages = "/packages/"

// readers see everything; Vendor, where it is added, sees its own.
var readers = []Role{Viewer, Operator, Approver, Halter, Admin}

// table maps each path, or each prefix that ends with a slash, to those who may.
var table = map[string][]Role{
	"/healthz":      {Anyone},
	"/openapi.json": {Anyone},
	"/ca.pem":       {Anyone},
	Packages:        with(readers, Host, Vendor),

	// A recovery environment has no certificate: what it gets is signed, what it sends is sealed and bounded.
	protocol.BundlePath: {Anyone},
	protocol.FixPath:    {Anyone},
	protocol.ReportPath: {Anyone},

	HostService + "Enrol":          {Anyone},
	HostService + "Renew":          {Host},
	HostService + "CheckIn":        {Host},
	HostService + "ReportRecovery": {Host},

	FleetService + "WhoAmI":            with(readers, Vendor),
	FleetService + "GetSummary":        with(readers, Vendor),
	FleetService + "ListHosts":         readers,
	FleetService + "GetHost":           readers,
	FleetService + "SetHostState":      {Operator, Admin},
	FleetService + "CreateEnrolToken":  {Operator, Admin},
	FleetService + "ListEnrolTokens":   {Operator, Admin},
	FleetService + "RevokeEnrolToken":  {Operator, Admin},
	FleetService + "CreateAccessToken": {Admin},
	FleetService + "ListAccessTokens":  {Admin},
	FleetService + "RevokeAccessToken": {Admin},
	FleetService + "PlanRollout":       with(readers, Vendor),
	FleetService + "CreateRollout":     {Operator, Admin},
	FleetService + "ListRollouts":      with(readers, Vendor),
	FleetService + "GetRollout":        with(readers, Vendor),
	FleetService + "ApproveRollout":    {Approver, Admin},
	FleetService + "PauseRollout":      {Operator, Halter, Admin},
	FleetService + "ResumeRollout":     {Operator, Admin},
	FleetService + "HaltRollout":       {Operator, Approver, Halter, Admin},
	FleetService + "ExplainRollout":    with(readers, Vendor),
	FleetService + "SetHold":           {Operator, Halter, Admin}, // it only ever stops something
	FleetService + "RemoveHold":        {Operator, Admin},
	FleetService + "ListHolds":         readers,
	FleetService + "ListAudit":         readers,
	FleetService + "VerifyAudit":       readers,
	FleetService + "ListBuckets":       with(readers, Vendor),
	FleetService + "ListBeacons":       readers,

	FleetService + "ListBundles":        readers,
	FleetService + "GetBundle":          readers,
	FleetService + "ListGroups":         readers,
	FleetService + "CreateRemediation":  {Operator, Vendor, Admin},
	FleetService + "ApproveRemediation": {Approver, Admin},
	FleetService + "ListRemediations":   readers,
	FleetService + "GetRemediation":     readers,
	FleetService + "RevokeRemediation":  {Operator, Approver, Halter, Admin},
}

func with(roles []Role, more ...Role) []Role { return append(slices.Clone(roles), more...) }

// Allowed lists who may ask for a path, the empty list for nobody.
func Allowed(path string) []Role {
	if roles, ok := table[path]; ok {
		return roles
	}
	if strings.HasPrefix(path, Packages) {
		return table[Packages]
	}
	return nil
}

// May reports whether one of the roles is enough for a path.
func May(path string, roles ...Role) bool {
	allowed := Allowed(path)
	return slices.ContainsFunc(roles, func(r Role) bool { return slices.Contains(allowed, r) })
}
