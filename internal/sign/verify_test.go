package sign_test

import (
	"testing"

	"github.com/keepout-security/keepout/internal/sign"
)

func TestVerify(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for path, want := range map[string]sign.Release{
		enginePath: engineRelease(), sigsPath: contentRelease("77", 77, 5000),
	} {
		got, err := w.verify(path)
		if err != nil {
			t.Fatal(err, names(w.vendor.files), names(w.operator.files))
		}
		if got.Digest != digestOfPath(path) || got.Length != 500 || got.Vendor != "acme" || got.Path != path ||
			got.Counter != want.Counter || got.Kind != want.Kind {
			t.Errorf("%+v", got)
		}
	}
}
