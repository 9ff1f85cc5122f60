package preview

import (
	"context"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"connectrpc.com/connect"

	"github.com/keepout-security/keepout/internal/fleet/client"
	"github.com/keepout-security/keepout/internal/fleet/fleetpb"
	"github.com/keepout-security/keepout/internal/fleet/fleetpb/fleetpbconnect"
	"github.com/keepout-security/keepout/internal/netlab"
)

func (f *Fleet) server() string { return fmt.Sprintf("https://%s:%d", netlab.HubAddress, port) }

// StartPlane starts the control plane, or starts it again, and waits until it serves.
func (f *Fleet) StartPlane(ctx context.Context) error {
	listen := fmt.Sprintf("%s:%d", netlab.HubAddress, port)
	args := []string{"--state-dir", f.in("fleet"), "--listen", listen}
	if f.opt.Speed > 1 {
		args = append(args, "--check-in", "2s", "--speed", strconv.Itoa(f.opt.Speed))
	}
	f.opt.Ran("keepout-fleet " + strings.ReplaceAll(strings.Join(args, " "), f.opt.Dir+"/", "") + " &")
	p, err := start(f.net.Hub, f.in("keepout-fleet.log"), filepath.Join(f.opt.Bin, "keepout-fleet"), args...)
	if err != nil {
		return err
	}
	f.plane = p
	err = f.Until(ctx, "the control plane serves", settleTime, func() bool {
		login, err := client.LoadLogin(f.in("fleet/admin.json"))
		if err != nil {
			return false
		}
		if f.api, err = login.DialThrough(f.net.Hub.Dial); err != nil {
			return false
		}
		_, err = f.api.WhoAmI(ctx, connect.NewRequest(&fleetpb.WhoAmIRequest{}))
		return err == nil
	})
	if err != nil {
		return fmt.Errorf("%w\n%s", err, p.logEnd())
	}
	return nil
}

// KillPlane ends the control plane without a word.
func (f *Fleet) KillPlane() { f.plane.kill() }

// PlaneLog are the control plane's last lines.
func (f *Fleet) PlaneLog() string { return f.plane.logEnd() }

// API is the control plane's, with the right to everything.
func (f *Fleet) API() fleetpbconnect.FleetServiceClient { return f.api }

// hosts lists the hosts that are enrolled.
func (f *Fleet) hosts(ctx context.Context) ([]*fleetpb.Host, error) {
	out, err := f.api.ListHosts(ctx, connect.NewRequest(&fleetpb.ListHostsRequest{Limit: 1000}))
	if err != nil {
		return nil, fmt.Errorf("list the hosts: %w", err)
	}
	return out.Msg.GetHosts(), nil
}

// reported is how many hosts the control plane knows something of.
func (f *Fleet) reported(ctx context.Context) int {
	list, err := f.hosts(ctx)
	if err != nil {
		return 0
	}
	return len(slices.DeleteFunc(list, func(h *fleetpb.Host) bool { return len(h.GetInstalled()) == 0 }))
}

// RollOut begins a rollout of content.
func (f *Fleet) RollOut(ctx context.Context, name, digest string, counter int) error {
	_, err := f.Keepout(ctx, "rollout", "create", "--name", name, "--provider", Provider, "--digest", digest,
		"--counter", strconv.Itoa(counter))
	return err
}

// Rollout is how far a rollout is, or nil while nobody answers. Its methods take nil for one of which nothing is known.
func (f *Fleet) Rollout(ctx context.Context, name string) *fleetpb.Rollout {
	out, err := f.api.GetRollout(ctx, connect.NewRequest(&fleetpb.GetRolloutRequest{Id: name}))
	if err != nil {
		return nil
	}
	return out.Msg.GetRollout()
}

// inRing is how the control plane tells a host's ring.
var inRing = regexp.MustCompile(`is in ring (\d+) of`)

// rings says in which ring each host is, by its name; a host of which nothing is known yet is left out.
func (f *Fleet) rings(ctx context.Context, rollout string) (map[string]int, error) {
	list, err := f.hosts(ctx)
	if err != nil {
		return nil, err
	}
	out := map[string]int{}
	for _, h := range list {
		ask := &fleetpb.ExplainRolloutRequest{Id: rollout, Host: h.GetId()}
		told, err := f.api.ExplainRollout(ctx, connect.NewRequest(ask))
		if err != nil {
			continue // it has not asked for anything yet
		}
		for _, line := range told.Msg.GetLines() {
			if m := inRing.FindStringSubmatch(line); m != nil {
				out[h.GetHostname()], _ = strconv.Atoi(m[1]) // digits
			}
		}
	}
	return out, nil
}
