package bus_test

import (
	"testing"

	"github.com/keepout-security/keepout/internal/fleet/bus"
	"github.com/keepout-security/keepout/internal/fleet/bus/bustest"
)

func TestLocalBus(t *testing.T) {
	t.Parallel()
	bustest.Run(t, func(*testing.T) bus.Bus { return bus.NewLocal() })
}
