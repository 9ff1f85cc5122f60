package journal

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/keepout-security/keepout/event"
)

// counted is a disk that counts writes.
type counted struct{ writes atomic.Int64 }

type countedFile struct {
	file
	d *counted
}

func (d *counted) wrap(f file, err error) (file, error) { return countedFile{f, d}, err }

func (d *counted) create(path string) (file, error) { return d.wrap(osDisk{}.create(path)) }
func (d *counted) open(path string) (file, error)   { return d.wrap(osDisk{}.open(path)) }

func (f countedFile) Write(data []byte) (int, error) {
	f.d.writes.Add(1)
	return f.file.Write(data)
}

// plainPath has no tab in it, as the samples have, which is written the long way.
const plainPath = "/srv/upload/eicar.com"

// BenchmarkAppend is the whole way of a record to the page cache: queue, encode, chain, write. As the trail does, it
// hands over what a moment has brought, here 16 records, and waits while too much is queued, so that nothing is lost
// and the drain's pace is measured. writes/op is what of a write(2) a record costs.
func BenchmarkAppend(b *testing.B) {
	for name, rec := range map[string]int{"allowed": 0, "denied": 1} {
		b.Run(name, func(b *testing.B) {
			var d counted
			j, err := open(b.TempDir(), Limits{}, environment{
				disk: &d, origin: testOrigin, now: time.Now, every: housekeepingEvery,
			})
			if err != nil {
				b.Fatal(err)
			}
			var batch [16]event.Record
			for i := range batch {
				batch[i] = sample()[rec]
				batch[i].Event.File.Path = plainPath
			}
			b.ReportAllocs()
			for n := 0; b.Loop(); n++ {
				if n%len(batch) > 0 {
					continue
				}
				for j.queued() > keptItems/2 {
					time.Sleep(50 * time.Microsecond)
				}
				j.Append(batch[:]...)
			}
			if err := j.Close(); err != nil {
				b.Fatal(err)
			}
			if j.Lost() > 0 {
				b.Errorf("%d records were lost", j.Lost())
			}
			b.ReportMetric(float64(d.writes.Load())/float64(b.N), "writes/op")
		})
	}
}

// queued is how many items wait.
func (j *Journal) queued() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.queue)
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

// BenchmarkEncodeLine is an activity's line: by hand, beside what encoding/json needs for the same, and its hash.
func BenchmarkEncodeLine(b *testing.B) {
	r := sample()[0]
	r.Event.File.Path = plainPath
	e := newEncoder(testOrigin)
	end := Head{Seq: 7, Hash: noHash}.link()
	var buf []byte
	b.Run("line", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			buf = e.appendActivity(buf[:0], &r, end)
		}
	})
	b.Run("hash", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(int64(len(buf)))
		for b.Loop() {
			end = end.next(buf)
		}
	})
	b.Run("encoding-json", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			objects := OCSF(r, testOrigin)
			var err error
			if buf, err = e.appendLine(buf[:0], &objects[0]); err != nil {
				b.Fatal(err)
			}
		}
	})
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
