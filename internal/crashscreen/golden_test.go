package crashscreen

import (
	"bytes"
	"flag"
	"fmt"
	"image"
	"image/png"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keepout-security/keepout/internal/crash"
)

var update = flag.Bool("update", false, "write testdata")

// stories are the records of the golden files.
func stories() map[string]crash.Record {
	acme := crash.Product{ID: "acme-av", Name: "ACME AV", Engine: "7.2", Content: "291"}
	at := time.Date(2026, 7, 19, 4, 9, 0, 0, time.UTC)
	looking := crash.Record{
		Code: "2FB4-12B9", Time: at, Attempts: 3, Starting: &acme,
		Cause: "Kernel panic - not syncing: Fatal exception in interrupt",
		Suspect: &crash.Suspect{
			Product: acme, Reason: "its content changed 4 minutes before the first failed start, and it was starting each time",
		},
		Steps: []crash.Step{
			{Progress: crash.Done, Text: "Diagnostics saved (33 KB)"},
			{Progress: crash.Done, Text: "Network: wired, 10.0.2.15"},
			{Progress: crash.Running, Text: "Looking for a fix from fleet.example.org", Detail: "attempt 2, next in 30 s"},
			{Text: "If none is found by 14:35: start without third-party security"},
		},
		Address: "https://fleet.example.org/r/2FB4-12B9",
		Details: []string{
			"[    3.412] BUG: kernel NULL pointer dereference",
			"[    3.413] RIP: 0010:acme_scan+0x2a/0x90 [acme]",
		},
	}
	nothing := crash.Record{
		Code: "77AA-0102", Attempts: 3,
		Steps: []crash.Step{
			{Progress: crash.Done, Text: "Diagnostics saved (4 KB)"},
			{Progress: crash.Failed, Text: "Network: no cable, and Wi-Fi is not used in recovery"},
			{Text: "At 14:05: start with the content of before the last change"},
		},
	}
	menu := looking
	menu.Steps, menu.Keys = nil, []crash.Key{{Name: "F2", Text: "details"}, {Name: "F10", Text: "power off"}}
	menu.Attempts = 9
	menu.Choices = []crash.Key{
		{Name: "1", Text: "Start without third-party security"},
		{Name: "2", Text: "Start with the versions of 12 July, the last that started well"},
		{Name: "Enter", Text: "Look for a fix again"},
		{Name: "4", Text: "Try to start once more, unchanged"},
	}
	long := looking
	longName := strings.Repeat("Enterprise Endpoint Protection ", 4) + "Platform"
	product := crash.Product{
		ID: "eepp", Name: longName, Engine: "2026.11.22.1-build.998877665544",
		Content: strings.Repeat("9", 90),
	}
	long.Starting, long.Suspect = &product, &crash.Suspect{Product: product, Reason: strings.Repeat("it changed and ", 30)}
	long.Cause = strings.Repeat("Unable to handle kernel paging request at ffffdeadbeef0000 ", 8)
	long.Steps = append(long.Steps, long.Steps...)
	long.Steps = append(long.Steps, crash.Step{Text: strings.Repeat("and then something else happens ", 10)})
	odd := looking
	strange := crash.Product{ID: "shomer", Name: "\u202eשומר\u202c \x1b[2J", Engine: "1.0\x00\xff\xfe", Content: "גרסה"}
	odd.Starting, odd.Suspect = &strange, &crash.Suspect{Product: strange, Reason: "Zürich \u200bµ-test: 病毒 \x07 ended…"}
	odd.Test = true
	return map[string]crash.Record{
		"looking": looking, "nothing": nothing, "menu": menu, "long": long, "odd": odd,
	}
}

// TestImages holds the pictures. Look at them before -update.
func TestImages(t *testing.T) {
	t.Parallel()
	for name, record := range stories() {
		for _, size := range []image.Point{{640, 480}, {1280, 800}, {3840, 2160}} {
			if size.X != 1280 && name != "looking" && name != "long" {
				continue
			}
			t.Run(fmt.Sprintf("%s-%d", name, size.X), func(t *testing.T) {
				t.Parallel()
				renderer, err := New()
				if err != nil {
					t.Fatal(err)
				}
				img := renderer.Image(&record, Main, size.X, size.Y)
				if img.Rect.Size() != size {
					t.Fatalf("the picture has %v", img.Rect)
				}
				comparePicture(t, fmt.Sprintf("%s-%dx%d.png", name, size.X, size.Y), img)
			})
		}
	}
}

func TestDetailsImage(t *testing.T) {
	t.Parallel()
	record := stories()["looking"]
	for i := range 60 {
		record.Details = append(record.Details, fmt.Sprintf("[    3.%03d]  ? __do_something_%d+0x1f/0x60", 500+i, i))
	}
	renderer, err := New()
	if err != nil {
		t.Fatal(err)
	}
	comparePicture(t, "details-1280x800.png", renderer.Image(&record, Details, 1280, 800))
}

// comparePicture compares with a tolerance: other processors may round a glyph's edge differently.
func comparePicture(t *testing.T, name string, img *image.Gray) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		var b bytes.Buffer
		encoder := png.Encoder{CompressionLevel: png.BestCompression}
		if err := encoder.Encode(&b, img); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	decoded, err := png.Decode(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	want, isGray := decoded.(*image.Gray)
	if !isGray || want.Rect != img.Rect {
		t.Fatalf("%s is no such picture", file)
	}
	different := 0
	for i := range want.Pix {
		if d := int(want.Pix[i]) - int(img.Pix[i]); d > 24 || d < -24 {
			different++
		}
	}
	if different > 0 {
		t.Errorf("%s: %d pixels differ; look at the picture, then go test ./internal/crashscreen -update", name, different)
	}
}

func TestTexts(t *testing.T) {
	t.Parallel()
	for name, record := range stories() {
		for _, size := range []image.Point{{80, 25}, {40, 12}} {
			lines := Text(&record, Main, size.X, size.Y)
			if len(lines) != size.Y {
				t.Errorf("%s: %d lines on a screen of %v", name, len(lines), size)
			}
			for _, line := range lines {
				if len(line) > size.X {
					t.Errorf("%s: %q is longer than %d", name, line, size.X)
				}
			}
			compareText(t, fmt.Sprintf("%s-%dx%d.txt", name, size.X, size.Y), strings.Join(lines, "\n")+"\n")
		}
		compareText(t, name+"-serial.txt", Serial(&record))
	}
}

func compareText(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", name, got, want)
	}
}
