package vm

import (
	"testing"

	"github.com/keepout-security/keepout/internal/boot"
	"github.com/keepout-security/keepout/internal/recovery/esp"
	"github.com/keepout-security/keepout/internal/recovery/protocol"
	"github.com/keepout-security/keepout/internal/testenv"
	"github.com/keepout-security/keepout/internal/testvm"
)

// TestRecoveryFullBadDisks: the recovery environment on a boot file system that is full, that takes nothing, whose
// state is damaged, or that is not there. It says so, and restarts or stands at the menu.
func TestRecoveryFullBadDisks(t *testing.T) {
	t.Parallel()
	testenv.Need(t, testenv.QEMU)
	o := newOrganisation(t)
	o.answer = func(q protocol.FixRequest) []byte {
		return o.seal(o.targeted("fix-disk", q.Digest, guilty), o.keys[0], o.keys[1])
	}
	img := buildImage(t, o.source())
	kernel, archive := testvm.DebianKernel(t, testvm.Cloud).Image, inFile(t, "recovery.cpio", img.Archive)
	crumb, err := boot.EncodeCrumb(boot.Crumb{Boot: "b", Provider: guilty, Engine: "7.2", Content: "291"})
	if err != nil {
		t.Fatal(err)
	}
	const atTheMenu = "Nothing more happens by itself"
	for name, c := range map[string]struct {
		damage func(d *testvm.Disk, s *testvm.Spec)
		told   []string // in this order
		leaves bool
	}{
		"full": {
			func(d *testvm.Disk, _ *testvm.Spec) { d.Fill() },
			[]string{"Next start: start without ACME AV - .*could not be written down.*no space left"},
			true,
		},
		"takes nothing": {func(d *testvm.Disk, s *testvm.Spec) {
			s.Disk, s.Extra = "", []string{"-drive", "file=" + d.File + ",format=raw,if=virtio,readonly=on"}
		}, []string{"boot file system: mount ", atTheMenu, "cannot be written: mount "}, false},
		"damaged": {func(d *testvm.Disk, _ *testvm.Spec) {
			d.Put("keepout/"+esp.StateA, make([]byte, boot.Size))
			d.Put("keepout/"+esp.StateB, []byte("garbage"))
		}, []string{"begun anew", "Next start: fix fix-disk"}, true},
		"missing": {
			func(_ *testvm.Disk, s *testvm.Spec) { s.Disk = "" },
			[]string{"boot file system: no disk has", atTheMenu, "cannot be written: no disk has"},
			false,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			state := worn()
			state.Boot = "b" // which ends here, while it starts what the crumb says
			files := espFiles(t, state)
			files["keepout/"+esp.CrumbFile] = crumb
			disk := testvm.NewDisk(t, files)
			spec := testvm.Spec{Kernel: kernel, Initramfs: archive, Cmdline: consoles, Disk: disk.File}
			c.damage(disk, &spec)
			m := testvm.Start(t, "bad-disk", spec)
			story := testvm.Tell(m, "The recovery environment, and a boot file system that is bad: "+name)
			for _, want := range c.told {
				m.ExpectWithin(want, storyTime)
			}
			if c.leaves {
				story.Wait("keepout-rescue: restart", storyTime, "it says so, and restarts")
				m.WaitExit(storyTime)
				return
			}
			testvm.WantPicture(t, story.Show("told", "it says so, and waits for a person"))
			m.Press("f10")
			m.ExpectWithin("keepout-rescue: power-off", storyTime)
			m.WaitExit(storyTime)
		})
	}
}
