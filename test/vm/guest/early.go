package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keepout-security/keepout/internal/boot"
	"github.com/keepout-security/keepout/internal/recovery/bootguard"
	"github.com/keepout-security/keepout/wire"
	pb "github.com/keepout-security/keepout/wire/keepoutpb"
)

const (
	earlyArgs  = 5
	engineTime = time.Minute
	sendBuffer = 64 << 10
)

// early is what a vendor's own unit does before the system is up: it starts the vendor's engine outside any cage, as
// it always did, with the vendor's content. When the engine ends itself, so does the machine: the engine stands for
// a kernel module, whose end that would be. It obeys when the platform says that this provider is not to be started,
// and knows nothing of last-known-good content and safe mode.
func early(provider, engine, content string) error {
	text, err := os.ReadFile(runDir + "/" + bootguard.InstructionFile)
	if err != nil {
		return err
	}
	in, err := boot.ParseInstruction(text)
	if err != nil {
		return err
	}
	tell(in)
	if slices.Contains(in.Orders.Disabled, provider) {
		say("guest: %s is not started", provider)
		return nil
	}
	if err := leaveCrumb(in, boot.Crumb{Provider: provider, Engine: "7.11", Content: "291"}); err != nil {
		return err
	}
	say("guest: starting %s", provider)
	said, err := load(engine, provider, content)
	if err == nil {
		say("guest: %s runs", provider)
		return nil
	}
	say("guest: %s ended: %v: %s", provider, err, firstLine(said))
	unix.Sync()
	return os.WriteFile("/proc/sysrq-trigger", []byte("c"), 0o600)
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return line
}

// load starts the engine over its real protocol and lets it load the content. The error is its end; said is what it
// wrote last.
func load(engine, provider, content string) (said string, err error) {
	auth, authEnd, err := wire.Pair(sendBuffer)
	if err != nil {
		return "", err
	}
	control, controlEnd, err := wire.Pair(sendBuffer)
	if err != nil {
		return "", err
	}
	defer auth.Close()
	ctx, cancel := context.WithTimeout(context.Background(), engineTime)
	defer cancel()
	var stderr strings.Builder
	cmd := exec.CommandContext(ctx, engine)
	cmd.ExtraFiles = []*os.File{authEnd, controlEnd}
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		return "", err
	}
	if err := errors.Join(authEnd.Close(), controlEnd.Close()); err != nil {
		return "", err
	}
	if err := welcome(control, provider, content); err == nil {
		return "", cmd.Process.Release() // it subscribed, and runs on
	}
	err = cmd.Wait()
	return stderr.String(), err
}

// welcome answers the engine's hello, and returns when the engine has loaded its content and subscribes.
func welcome(control *wire.Conn, provider, content string) error {
	buf := make([]byte, wire.MaxPacket)
	for {
		n, err := control.Recv(buf)
		if err != nil {
			return err
		}
		m, err := wire.DecodeFromProvider(buf[:n])
		switch {
		case err != nil:
			return err
		case m.GetSubscribe() != nil:
			return nil
		case m.GetHello() == nil:
			continue
		}
		packet, err := wire.Encode(nil, &pb.ToProvider{Body: &pb.ToProvider_Welcome{Welcome: &pb.Welcome{
			Major: wire.Major, Provider: provider, Content: content, HeartbeatMs: 1000, MaxPacket: wire.MaxPacket,
			Credit: 1,
		}}})
		if err != nil {
			return fmt.Errorf("welcome: %w", err)
		}
		if err := control.Send(packet, -1); err != nil {
			return fmt.Errorf("welcome: %w", err)
		}
	}
}
