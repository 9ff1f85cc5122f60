//go:build linux

package arming

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// What a kernel's configuration says of its panic screen (drivers/gpu/drm/Kconfig).
const (
	drmPanic  = "CONFIG_DRM_PANIC=y"
	drmQRCode = "CONFIG_DRM_PANIC_SCREEN_QR_CODE=y"
)

// maxConfigs bounds how many kernels' configurations are looked at.
const maxConfigs = 16

// panicScreen chooses the kernel's own panic screen, where a kernel of this system has one: the code with the end of
// the log where each that has a screen can draw it, else the sentence. It says what arming has no say in.
func (p *planner) panicScreen() {
	names, _ := filepath.Glob(p.at("/boot/config-*")) // the pattern is well-formed
	screens, codes := 0, 0
	for _, name := range names[:min(len(names), maxConfigs)] {
		info, err := os.Stat(name)
		if err != nil || info.Size() > maxFile {
			continue
		}
		text, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		lines := strings.Split(string(text), "\n")
		if slices.Contains(lines, drmPanic) {
			screens++
			if slices.Contains(lines, drmQRCode) {
				codes++
			}
		}
	}
	if screens == 0 {
		return
	}
	screen := "user"
	if codes == screens {
		screen = "qr_code"
	}
	p.parameters = append(p.parameters, panicScreenKey+"="+screen)
	p.say("the kernel's own panic screen (" + screen + ") is not Keepout's: its words, address and colours are the " +
		"kernel's, it is drawn only where the graphics card's module can, it stands until panic= restarts the machine, " +
		"and a hang without a panic never shows it")
}

const panicScreenKey = "drm.panic_screen"

// keyOf is the name of a kernel parameter. The kernel takes "-" and "_" in it for the same.
func keyOf(parameter string) string {
	key, _, _ := strings.Cut(parameter, "=")
	return strings.ReplaceAll(key, "-", "_")
}

var grubLine = regexp.MustCompile(`(?m)^\s*GRUB_CMDLINE_LINUX(?:_DEFAULT)?\s*\+?=(.*)$`)

// setInGrub reports whether the administrator's file sets a parameter. Comments do not.
func setInGrub(file []byte, key string) bool {
	for _, m := range grubLine.FindAllSubmatch(file, -1) {
		fields := strings.FieldsFunc(string(m[1]), func(r rune) bool { return strings.ContainsRune(" \t\"'", r) })
		if slices.ContainsFunc(fields, func(f string) bool { return strings.Contains(f, "=") && keyOf(f) == key }) {
			return true
		}
	}
	return false
}
