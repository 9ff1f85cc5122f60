package journal

import (
	"testing"
	"time"
)

// BenchmarkAppend is the whole way of a record to the page cache: queue, encode, chain, write. It waits
// while the queue is full, so that nothing is lost and the drain's pace is measured.
func BenchmarkAppend(b *testing.B) {
	for name, rec := range map[string]int{"allowed": 0, "denied": 1} {
		b.Run(name, func(b *testing.B) {
			j, err := Open(b.TempDir(), Limits{})
			if err != nil {
				b.Fatal(err)
			}
			r := sample()[rec]
			b.ReportAllocs()
			for b.Loop() {
				for len(j.queue) == QueueLen {
					time.Sleep(50 * time.Microsecond)
				}
				j.Append(r)
			}
			if err := j.Close(); err != nil {
				b.Fatal(err)
			}
			if j.Lost() > 0 {
				b.Errorf("%d records were lost", j.Lost())
			}
		})
	}
}

// BenchmarkAppendFlood is what the caller of Append pays when it is faster than the disk: most records find
// the queue full.
func BenchmarkAppendFlood(b *testing.B) {
	j, err := Open(b.TempDir(), Limits{})
	if err != nil {
		b.Fatal(err)
	}
	r := sample()[0]
	b.ReportAllocs()
	for b.Loop() {
		j.Append(r)
	}
	b.StopTimer()
	if err := j.Close(); err != nil {
		b.Fatal(err)
	}
}

func BenchmarkEncodeLine(b *testing.B) {
	r := sample()[0]
	var e encoder
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		objects := OCSF(r, testOrigin)
		var err error
		if buf, err = e.appendLine(buf[:0], &objects[0]); err != nil {
			b.Fatal(err)
		}
		hashLine(buf)
	}
}

func BenchmarkDecode(b *testing.B) {
	lines, err := Encode(sample()[1], testOrigin)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Decode(lines[0]); err != nil {
			b.Fatal(err)
		}
	}
}
