package store

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"testing"
)

// archiveSeeds are archives of every kind that matters.
func archiveSeeds(f *testing.F) (seeds [][]byte) {
	f.Helper()
	for _, h := range []*tar.Header{
		{Name: "acme", Typeflag: tar.TypeReg, Mode: 0o755, Size: 1},
		{Name: "../x", Typeflag: tar.TypeReg, Size: 1},
		{Name: "/x", Typeflag: tar.TypeReg, Size: 1},
		{Name: "x", Typeflag: tar.TypeSymlink, Linkname: "/etc"},
		{Name: "x", Typeflag: tar.TypeLink, Linkname: "provider.yaml"},
		{Name: "x", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3},
		{Name: "d/e/", Typeflag: tar.TypeDir},
		{Name: "größe", Typeflag: tar.TypeReg, Size: 1, Format: tar.FormatPAX},
	} {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		first := &tar.Header{Name: "provider.yaml", Typeflag: tar.TypeReg, Size: 1}
		for _, h := range []*tar.Header{first, h} {
			if err := w.WriteHeader(h); err != nil {
				f.Fatal(err)
			}
			if _, err := w.Write(make([]byte, h.Size)); err != nil {
				f.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			f.Fatal(err)
		}
		seeds = append(seeds, b.Bytes())
		var z bytes.Buffer
		zw := gzip.NewWriter(&z)
		if _, err := zw.Write(b.Bytes()); err != nil {
			f.Fatal(err)
		}
		if err := zw.Close(); err != nil {
			f.Fatal(err)
		}
		seeds = append(seeds, z.Bytes())
	}
	return seeds
}
