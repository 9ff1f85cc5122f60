package diagnostics

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
)

// BenchmarkMake builds a bundle of a usual panic log (16 KiB), and of one that fills it. In the recovery environment a
// person waits for it.
func BenchmarkMake(b *testing.B) {
	var log bytes.Buffer
	for i := 0; log.Len() < 1<<20; i++ {
		fmt.Fprintf(&log, "<6>[%5d.%06d] usb 1-%d: new high-speed USB device number %d using xhci_hcd\n", i/1000, i%1000,
			i%9, i)
	}
	for _, size := range []int{16 << 10, 1 << 20} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			in := input()
			in.PanicLog = slices.Concat(log.Bytes()[:size], []byte(panicText))
			for b.Loop() {
				if _, _, err := Make(in, Full); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
