package config

import (
	"context"

	"github.com/keepout-security/keepout/internal/content"
)

// checkSchema reports what is wrong with the manifest's content_schema, at its place.
func (m *Manifest) checkSchema(bad refusal) {
	m.Schema.Validate(func(at, fix, format string, args ...any) {
		bad("$.content_schema"+at, fix, format, args...)
	})
}

// CheckContent compares the provider's content with the schema in its manifest. It returns nil where there is no
// schema or no content is configured, a *content.Refused, or the context's error.
func (in *Installed) CheckContent(ctx context.Context) error {
	if in.Content == "" || in.Manifest == nil {
		return nil
	}
	return content.Check(ctx, in.Content, &in.Manifest.Schema)
}
