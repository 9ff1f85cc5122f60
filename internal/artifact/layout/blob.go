package layout

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"io/fs"
)

// blob reads a blob, no byte more than its size, and compares its digest at the end.
type blob struct {
	file fs.File
	want Descriptor
	sum  hash.Hash
	left int64
	err  error // what every further read gives
}

func (p *Package) open(d Descriptor) (*blob, error) {
	f, err := p.dir.Open(blobName(d.Digest))
	if err != nil {
		return nil, unreadable(short(d.Digest), err)
	}
	return &blob{file: f, want: d, sum: sha256.New(), left: d.Size}, nil
}

// Read implements io.Reader. After the last byte it returns io.EOF only when size and digest are right.
func (b *blob) Read(buf []byte) (int, error) {
	if b.err != nil || len(buf) == 0 {
		return 0, b.err
	}
	if b.left == 0 {
		b.err = b.end()
		return 0, b.err
	}
	n, err := b.file.Read(buf[:min(int64(len(buf)), b.left)])
	b.left -= int64(n)
	b.sum.Write(buf[:n])
	switch {
	case errors.Is(err, io.EOF) && b.left > 0:
		b.err = b.changed("it ends %d bytes early", b.left)
	case err != nil && !errors.Is(err, io.EOF):
		b.err = unreadable(short(b.want.Digest), err)
	}
	return n, b.err
}

// end is reached when all bytes were read.
func (b *blob) end() error {
	if n, err := b.file.Read(make([]byte, 1)); n > 0 || err != nil && !errors.Is(err, io.EOF) {
		return b.changed("it has more than %d bytes", b.want.Size)
	}
	if got := "sha256:" + hex.EncodeToString(b.sum.Sum(nil)); got != b.want.Digest {
		return b.changed("its digest is %s", short(got))
	}
	return io.EOF
}

func (b *blob) changed(format string, args ...any) error {
	return refuse(CodeChanged, "copy the package again from a source that you trust", short(b.want.Digest)+
		" was changed or torn: "+format, args...)
}

// Close implements io.Closer.
func (b *blob) Close() error { return b.file.Close() }
