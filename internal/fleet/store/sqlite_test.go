package store_test

import (
	"database/sql"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keepout-security/keepout/internal/fleet/audit"
	"github.com/keepout-security/keepout/internal/fleet/store"
	"github.com/keepout-security/keepout/internal/fleet/store/storetest"
)

func openAt(t testing.TB, path string) *store.SQLite {
	t.Helper()
	s, err := store.OpenSQLite(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSQLite(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(t *testing.T) (store.Store, func() store.Store) {
		t.Helper()
		path := filepath.Join(t.TempDir(), "a b?#%.db") // names that mean something in a URL
		return openAt(t, path), func() store.Store { return openAt(t, path) }
	})
}

// TestAuditRowsCannotBeChanged: not even by SQL, unless somebody removes the triggers, and then the chain shows it.
func TestAuditRowsCannotBeChanged(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "fleet.db")
	s := openAt(t, path)
	defer s.Close()
	err := s.Update(t.Context(), func(tx store.Tx) error {
		_, err := tx.Append(audit.Entry{At: time.Unix(1, 0), Actor: "ann", Detail: "{}"})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, change := range []string{"UPDATE audit SET actor = 'eve'", "DELETE FROM audit"} {
		if _, err := db.ExecContext(t.Context(), change); err == nil || !strings.Contains(err.Error(), "append-only") {
			t.Errorf("%s: %v", change, err)
		}
	}
}

// BenchmarkCheckIns writes batches of 500, and one by one for comparison.
func BenchmarkCheckIns(b *testing.B) {
	for name, size := range map[string]int{"batch=500": 500, "batch=1": 1} {
		b.Run(name, func(b *testing.B) {
			s := openAt(b, filepath.Join(b.TempDir(), "fleet.db"))
			defer s.Close()
			batch := make([]store.CheckIn, size)
			err := s.Update(b.Context(), func(tx store.Tx) error {
				for i := range batch {
					id := "host-" + time.Duration(i).String()
					batch[i] = store.CheckIn{Host: id, At: time.Unix(int64(i), 0), Instance: "i", BootID: "b"}
					if err := tx.PutHost(store.Host{ID: id, State: store.Active}); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				if err := s.Update(b.Context(), func(tx store.Tx) error { return tx.CheckIns(batch) }); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N*size)/b.Elapsed().Seconds(), "check-ins/s")
		})
	}
}
