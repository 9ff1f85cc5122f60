package fetch

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"

	"github.com/keepout-security/keepout/internal/update"
)

// trouble notes why not all of what a vendor publishes is here.
func (c *catalog) trouble(vendor string, err error) {
	if c.troubles == nil {
		c.troubles = map[string]error{}
	}
	c.troubles[vendor] = errors.Join(c.troubles[vendor], err)
}

// toldTroubles is what the core is told of them, in the order of the vendors' names.
func (c *catalog) toldTroubles() (out []update.Trouble) {
	for _, vendor := range slices.Sorted(maps.Keys(c.troubles)) {
		out = append(out, update.Trouble{Vendor: vendor, Why: inShort(c.troubles[vendor])})
	}
	return out
}

// log says them to whoever reads the log.
func (c *catalog) log(log *slog.Logger) {
	for _, vendor := range slices.Sorted(maps.Keys(c.troubles)) {
		log.Warn("not all of what a vendor publishes was fetched", slog.String("vendor", vendor),
			slog.String("error", inShort(c.troubles[vendor])))
	}
}

// err is all of them as one, nil for none.
func (c *catalog) err() error {
	errs := make([]error, 0, len(c.troubles))
	for _, vendor := range slices.Sorted(maps.Keys(c.troubles)) {
		errs = append(errs, fmt.Errorf("the vendor %s: %w", vendor, c.troubles[vendor]))
	}
	return errors.Join(errs...)
}

// maxShort bounds what the core is told of an error, in bytes.
const maxShort = 256

// inShort is an error on one line.
func inShort(err error) string {
	text := strings.ReplaceAll(err.Error(), "\n", "; ")
	return strings.ToValidUTF8(text[:min(len(text), maxShort)], "")
}
