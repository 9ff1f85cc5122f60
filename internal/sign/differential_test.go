package sign_test

import (
	"fmt"
	"testing"
	"testing/fstest"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata/trustedmetadata"

	"github.com/keepout-security/keepout/internal/sign"
)

// goTUF is the second judge: what go-tuf says of one repository, for a client that has seen nothing but the root.
func goTUF(files fstest.MapFS, root []byte, now time.Time, role string) error {
	trusted, err := trustedmetadata.New(root)
	if err != nil {
		return err
	}
	trusted.RefTime = now
	for {
		next, ok := files[fmt.Sprintf("%d.root.json", trusted.Root.Signed.Version+1)]
		if !ok {
			break
		}
		if _, err := trusted.UpdateRoot(next.Data); err != nil {
			return err
		}
	}
	data := func(name string) []byte {
		if f, ok := files[name]; ok {
			return f.Data
		}
		return nil
	}
	if _, err := trusted.UpdateTimestamp(data("timestamp.json")); err != nil {
		return err
	}
	version := trusted.Timestamp.Signed.Meta["snapshot.json"].Version
	if _, err := trusted.UpdateSnapshot(data(fmt.Sprintf("%d.snapshot.json", version)), false); err != nil {
		return err
	}
	for _, step := range [][2]string{{"targets", "root"}, {role, "targets"}} {
		meta, ok := trusted.Snapshot.Signed.Meta[step[0]+".json"]
		if !ok {
			return fmt.Errorf("the snapshot lacks %s", step[0])
		}
		name := fmt.Sprintf("%d.%s.json", meta.Version, step[0])
		if _, err := trusted.UpdateDelegatedTargets(data(name), step[0], step[1]); err != nil {
			return err
		}
	}
	return nil
}

// compare asks go-tuf about both repositories. What we accept, it must accept; what we refuse for a reason that one
// repository shows to a newcomer, it must refuse.
func compare(t *testing.T, w *world, class, code string) {
	t.Helper()
	vendorErr := goTUF(w.vendor.files, firstRoot(w.vendor), w.now, class)
	operatorErr := goTUF(w.operator.files, w.trust.OperatorRoot, w.now, "catalog-"+class)
	refused := vendorErr != nil || operatorErr != nil
	switch code {
	case "":
		if refused {
			t.Errorf("we accept what go-tuf refuses: vendor %v, operator %v", vendorErr, operatorErr)
		}
	case sign.CodeThreshold, sign.CodeExpired, sign.CodeMissing, sign.CodeEndless:
		if !refused {
			t.Errorf("we refuse (%s) what go-tuf accepts", code)
		}
	}
}

func firstRoot(r *repo) []byte {
	if f, ok := r.files["1.root.json"]; ok {
		return f.Data
	}
	return nil
}
