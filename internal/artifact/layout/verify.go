package layout

import (
	"io"
	"io/fs"

	"github.com/keepout-security/keepout/internal/sign"
)

// Verify reads a whole package and compares it with what was signed: the manifest's digest and length, the package's
// own description, and every byte of every layer. What it returns may be used for as long as nobody else can write to
// the folder; where somebody can, its layers are verified again as they are read.
func Verify(dir fs.FS, target sign.Target) (*Package, error) {
	p, err := Open(dir, target.Digest, target.Length)
	if err != nil {
		return nil, err
	}
	config, err := p.Config()
	if err != nil {
		return nil, err
	}
	if err := target.Describes(config); err != nil {
		return nil, err
	}
	if (p.Type() == EngineType) != (target.Kind == sign.Engine) {
		return nil, refuse(CodePackage, remake, "%s is a package of type %s, and was signed as %s", target.Path, p.Type(),
			target.Kind)
	}
	for _, l := range p.Layers() {
		if l.MediaType == FilesType {
			continue
		}
		if _, _, err := p.Text(l.MediaType); err != nil {
			return nil, err
		}
	}
	size, err := p.Files(func(File, io.Reader) error { return nil })
	if err != nil {
		return nil, err
	}
	if size != target.Size {
		return nil, refuse(CodeChanged, "do not use it", "%s has files of %d bytes, and was signed with %d", target.Path,
			size, target.Size)
	}
	return p, nil
}
