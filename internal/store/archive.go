package store

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"path"
	"strings"
)

// headerRoom is how much an archive may spend on each entry besides its content, in bytes: a header, its padding,
// and extended headers for long names.
const headerRoom = 8 << 10

// unpack feeds a tree from a tar archive, compressed by gzip or not. It ends when the archive unpacks to more than
// the limits allow, whatever the headers say.
func unpack(t *tree, r io.Reader) error {
	in := bufio.NewReader(r)
	var plainText io.Reader = in
	if magic, err := in.Peek(2); err == nil && bytes.Equal(magic, []byte{0x1f, 0x8b}) {
		z, err := gzip.NewReader(in)
		if err != nil {
			return t.malformed(err)
		}
		plainText = z
	}
	bounded := &bound{r: plainText, left: t.limits.Bytes + int64(t.limits.Entries)*headerRoom}
	archive := tar.NewReader(bounded)
	for n := 0; ; n++ {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) && n > 0 {
			break
		}
		if err == nil && n >= 2*t.limits.Entries { // folders may be named again and again
			err = errTooLarge
		}
		if err != nil {
			return t.malformed(err)
		}
		source := &reader{r: archive}
		if err := t.unpackEntry(h, source); err != nil {
			if source.err != nil {
				return t.malformed(source.err)
			}
			return err
		}
	}
	// To the end, so that the checksum of gzip is compared.
	if _, err := io.Copy(io.Discard, bounded); err != nil {
		return t.malformed(err)
	}
	return nil
}

func (t *tree) unpackEntry(h *tar.Header, r io.Reader) error {
	name := strings.TrimPrefix(h.Name, "./")
	switch h.Typeflag {
	case tar.TypeXGlobalHeader: // what git archive writes; it has no file
		return nil
	case tar.TypeDir:
		name = strings.TrimSuffix(name, "/")
		if name == "" || name == "." {
			return nil
		}
		if t.known[name] == folder {
			return nil
		}
		return t.folder(name)
	case tar.TypeReg:
		if h.Mode&0o6000 != 0 {
			return t.refuse(CodeForbidden, name, "is set-user-id or set-group-id", "chmod a-s it, then pack again")
		}
		return t.file(name, h.Mode&0o111 != 0, h.Size, r)
	case tar.TypeSymlink, tar.TypeLink:
		return t.refuse(CodeForbidden, name, "is a link to "+path.Clean(h.Linkname), "put the file itself there: tar -h")
	case tar.TypeChar, tar.TypeBlock:
		return t.refuse(CodeForbidden, name, "is a device", "remove it from the package")
	case tar.TypeFifo:
		return t.refuse(CodeForbidden, name, "is a pipe", "remove it from the package")
	default:
		return t.refuse(CodeForbidden, name, "is neither file nor folder", "remove it from the package")
	}
}

// malformed is the error about an archive as a whole.
func (t *tree) malformed(err error) error {
	switch {
	case errors.Is(err, errTooLarge):
		return t.refuse(CodeTooLarge, "", "unpacks to more than the store takes", "leave out what is not needed")
	case errors.Is(err, io.EOF):
		return t.refuse(CodeArchive, "", "is empty", "name a tar archive, compressed by gzip or not")
	}
	return t.refuse(CodeArchive, "", "is no tar archive, or a damaged one: "+err.Error(),
		"name a tar archive, compressed by gzip or not")
}

var errTooLarge = errors.New("too large")

// bound gives an error, not an end, when there is more than it may read.
type bound struct {
	r    io.Reader
	left int64
}

// Read implements io.Reader.
func (b *bound) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errTooLarge
	}
	n, err := b.r.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}
