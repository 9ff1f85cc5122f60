package rescue

import (
	"testing"
	"time"

	"github.com/keepout-security/keepout/internal/recovery/settings"
)

func TestPace(t *testing.T) {
	t.Parallel()
	var c settings.Config
	if p := pace(&c); p.RetryInterval != 30*time.Minute || p.TotalWait != 3*time.Hour || p.NetworkWait != time.Minute {
		t.Errorf("defaults %+v", p)
	}
	c.RetryMinutes, c.TotalMinutes = 9000, 1
	if p := pace(&c); p.RetryInterval != 4320*time.Minute || p.TotalWait != time.Minute {
		t.Errorf("bounds %+v", p)
	}
}
