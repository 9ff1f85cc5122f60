package image

import (
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/keepout-security/keepout/internal/recovery/modindex"
)

const maxInfo = 4 << 20 // bytes of a module's .modinfo

// infoOf reads what a module says of itself: its name, what it needs and which devices it serves. Modules that it would
// only like to have first are left out.
func infoOf(r io.ReaderAt) (modindex.Module, error) {
	file, err := elf.NewFile(r)
	if err != nil {
		return modindex.Module{}, fmt.Errorf("read a module: %w", err)
	}
	section := file.Section(".modinfo")
	if section == nil || section.Size > maxInfo {
		return modindex.Module{}, errors.New("read a module: it has no information that can be read")
	}
	data, err := section.Data()
	if err != nil {
		return modindex.Module{}, fmt.Errorf("read a module: %w", err)
	}
	var m modindex.Module
	for field := range strings.SplitSeq(string(data), "\x00") {
		key, value, _ := strings.Cut(field, "=")
		switch key {
		case "name":
			m.Name = modindex.Name(value)
		case "alias":
			m.Aliases = append(m.Aliases, value)
		case "depends":
			for need := range strings.SplitSeq(value, ",") {
				if need != "" {
					m.Needs = append(m.Needs, modindex.Name(need))
				}
			}
		}
	}
	if !modindex.Valid(m.Name) {
		return modindex.Module{}, fmt.Errorf("read a module: its name is %.80q", m.Name)
	}
	return m, nil
}
