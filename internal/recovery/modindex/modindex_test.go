package modindex

import (
	"encoding/json"
	"slices"
	"testing"
)

func sample() Index {
	return Index{Release: "6.1", Modules: []Module{
		{Name: "vfat", File: "lib/modules/vfat.ko", Needs: []string{"fat"}, Always: true},
		{Name: "fat", File: "lib/modules/fat.ko"},
		{Name: "virtio", File: "lib/modules/virtio.ko"},
		{
			Name: "virtio_net", File: "lib/modules/virtio-net.ko", Needs: []string{"virtio"},
			Aliases: []string{"virtio:d00000001v*"},
		},
		{Name: "a", File: "a.ko", Needs: []string{"b"}, Aliases: []string{"cycle"}},
		{Name: "b", File: "b.ko", Needs: []string{"a"}},
		{Name: "lost", File: "lost.ko", Needs: []string{"gone"}, Aliases: []string{"lost"}},
	}}
}

func names(modules []Module) (out []string) {
	for _, m := range modules {
		out = append(out, m.Name)
	}
	return out
}

func TestFor(t *testing.T) {
	t.Parallel()
	x := sample()
	for _, c := range []struct {
		alias string
		want  []string
		ok    bool
	}{
		{"", []string{"fat", "vfat"}, true},
		{"virtio:d00000001v00001AF4", []string{"fat", "vfat", "virtio", "virtio_net"}, true},
		{"virtio:d00000002v00001AF4", []string{"fat", "vfat"}, true},
		{"cycle", []string{"fat", "vfat"}, false},
		{"lost", []string{"fat", "vfat"}, false},
	} {
		got, err := x.For([]string{c.alias})
		if !slices.Equal(names(got), c.want) || (err == nil) != c.ok {
			t.Errorf("%q: %q, %v; want %q", c.alias, names(got), err, c.want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	for _, bad := range []Module{
		{Name: "x/y", File: "a"}, {Name: "", File: "a"}, {Name: "x", File: "/a"}, {Name: "x", File: "../a/../b"},
	} {
		text, err := json.Marshal(Index{Modules: []Module{bad}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Parse(text); err == nil {
			t.Errorf("%+v was read", bad)
		}
	}
}

func TestName(t *testing.T) {
	t.Parallel()
	for file, want := range map[string]string{
		"kernel/drivers/char/hw_random/virtio-rng.ko": "virtio_rng", "a/nls_iso8859-1.ko.xz": "nls_iso8859_1", "fat": "fat",
	} {
		if got := Name(file); got != want {
			t.Errorf("%s: %s", file, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	text, err := json.Marshal(sample())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text, "virtio:d00000001v00001AF4")
	f.Add([]byte(`{"modules":[{"name":"x","file":"x","needs":["x"],"alias":["["]}]}`), "x")
	f.Fuzz(func(t *testing.T, data []byte, alias string) {
		x, err := Parse(data)
		if err != nil {
			return
		}
		modules, _ := x.For([]string{alias})
		loaded := map[string]bool{}
		for _, m := range modules {
			for _, need := range m.Needs {
				if !loaded[need] {
					t.Fatalf("%s comes before %s", m.Name, need)
				}
			}
			loaded[m.Name] = true
		}
	})
}
