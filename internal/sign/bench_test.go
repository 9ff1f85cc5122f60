package sign_test

import (
	"crypto/ed25519"
	"testing"

	"github.com/keepout-security/keepout/internal/sign"
)

// BenchmarkVerify is one decision about a release, beside one of the signatures that it checks (some 30).
func BenchmarkVerify(b *testing.B) {
	w := newWorld(b)
	_, state, err := sign.Verify(w.trust, w.state, w.now, w.vendor.files, w.operator.files, enginePath)
	must(b, err)
	b.Run("release", func(b *testing.B) {
		for b.Loop() {
			_, _, err := sign.Verify(w.trust, state, w.now, w.vendor.files, w.operator.files, enginePath)
			must(b, err)
		}
	})
	b.Run("one signature", func(b *testing.B) {
		k := key("x")
		public, sig := k.Public().(ed25519.PublicKey), ed25519.Sign(k, []byte("message"))
		for b.Loop() {
			ed25519.Verify(public, []byte("message"), sig)
		}
	})
	raw, err := state.Encode()
	must(b, err)
	b.ReportMetric(float64(len(raw)), "state-bytes")
}
