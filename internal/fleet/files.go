package fleet

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path"
	"regexp"
	"strings"

	"github.com/keepout-security/keepout/internal/fleet/access"
)

// packages serves TUF metadata and package blobs as they lie in one folder. Nothing here is trusted by a host: it
// verifies all of it. Names do not leave the folder, also not by a link; folders are not listed.
type packages struct{ root *os.Root }

// blobName is how a file is called that is named by its content and so never changes.
var blobName = regexp.MustCompile(`^(?:[0-9a-f]{64}|sha256-[0-9a-f]{64})(?:\.|$)`)

func (p packages) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "GET or HEAD", http.StatusMethodNotAllowed)
		return
	}
	name := path.Clean(strings.TrimPrefix(r.URL.Path, access.Packages))
	f, info, err := p.open(name)
	if err != nil {
		status := http.StatusNotFound
		if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrInvalid) {
			status = http.StatusForbidden
		}
		http.Error(w, http.StatusText(status), status)
		return
	}
	defer f.Close()
	base := path.Base(name)
	if blobName.MatchString(base) {
		w.Header().Set("ETag", `"`+base+`"`)
		w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	} else {
		w.Header().Set("ETag", fmt.Sprintf(`"%x-%x"`, info.ModTime().UnixNano(), info.Size()))
		w.Header().Set("Cache-Control", "no-cache")
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	http.ServeContent(w, r, "", info.ModTime(), f)
}

// open opens a regular file.
func (p packages) open(name string) (*os.File, fs.FileInfo, error) {
	if p.root == nil || !fs.ValidPath(name) || name == "." {
		return nil, nil, fs.ErrInvalid
	}
	// What is no regular file is not even opened: a pipe would wait for somebody to write.
	if info, err := p.root.Stat(name); err != nil {
		return nil, nil, err
	} else if !info.Mode().IsRegular() {
		return nil, nil, fs.ErrNotExist
	}
	f, err := p.root.Open(name)
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fs.ErrNotExist
	}
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	return f, info, nil
}
