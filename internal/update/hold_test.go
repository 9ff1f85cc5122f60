package update

import (
	"errors"
	"io"
	"testing"

	"github.com/keepout-security/keepout/internal/folder"
	"github.com/keepout-security/keepout/internal/rollback"
)

// sweeping is a host on which somebody tries to tidy the staging folder up while a package is taken.
type sweeping struct {
	*world

	dir  *folder.Folder
	errs []error
}

func (s *sweeping) Import(part rollback.Part, name string, tar io.Reader) (rollback.Digest, error) {
	hold, err := s.dir.Tidying()
	if err == nil {
		err = hold.Close()
	}
	s.errs = append(s.errs, err)
	return s.world.Import(part, name, tar)
}

// TestNobodySweepsWhileTheCoreLooks: from the list of orders to the last byte of a package, nothing is removed from the
// staging folder; and while something is, the core neither looks nor forgets.
func TestNobodySweepsWhileTheCoreLooks(t *testing.T) {
	t.Parallel()
	w := newWorld(t, true)
	o := w.publish("1", 1, "acme", "ops")
	dir, err := folder.Open(w.staging)
	w.must(err)
	defer func() { _ = dir.Close() }()
	host := &sweeping{world: w, dir: dir}
	w.taker.c.Host = host
	w.look(nil, o)
	asks := w.taker.Asks()
	if len(asks) != 1 {
		t.Fatalf("asks %v, refused %v", asks, w.taker.refusals())
	}
	sweep, err := dir.Tidying()
	w.must(err)
	w.look([][]byte{w.grant(directorKey, o.Digest, asks[0].Nonce, 3)})
	if len(w.taker.Asks()) != 1 || len(w.taker.Problems()) > 0 {
		t.Errorf("while it is swept: asks %v, problems %v", w.taker.Asks(), w.taker.Problems())
	}
	w.must(sweep.Close())
	w.look([][]byte{w.grant(directorKey, o.Digest, asks[0].Nonce, 3)}, o)
	if len(w.offered) != 1 || len(host.errs) != 1 || !errors.Is(host.errs[0], folder.ErrHeld) {
		t.Errorf("offered %v; tidied up meanwhile: %v", w.offered, host.errs)
	}
}
