//go:build !linux

package conformance

import (
	"errors"
	"io/fs"

	pb "github.com/keepout-security/keepout/wire/keepoutpb"
)

func identify(fs.FileInfo, *pb.File) {}

func (p *Peer) pause() error              { return errors.ErrUnsupported }
func (p *Peer) resume() error             { return errors.ErrUnsupported }
func (p *Peer) stopped() (bool, error)    { return false, errors.ErrUnsupported }
func (p *Peer) descriptors() (int, error) { return 0, errors.ErrUnsupported }
