package simulate

import (
	"math"
	"math/rand/v2"
)

// never is a time that does not come.
const never = math.MaxUint32

const (
	hourSeconds = 3600
	day         = 24
)

// habit is how people use their machines: the rates, each minute, at which machines that are on are switched off or
// closed, and the others come back, for each hour of the day.
type habit struct {
	leave, arrive [day]float64
	on            [day * 60]float64 // the share that is on, by minute of the day
}

// habits of the two kinds of machines. Servers leave once in two months. Of the whole fleet four fifths are on at ten in
// the morning, of which 0.05 % a minute leave; in the early evening 0.3 % a minute.
type habits struct{ desk, server habit }

func newHabits() *habits {
	h := &habits{}
	for hour := range day {
		d := &h.desk
		switch {
		case hour < 6 || hour >= 22:
			d.leave[hour], d.arrive[hour] = 0.003, 0.0003
		case hour < 9:
			d.leave[hour], d.arrive[hour] = 0.0004, 0.006
		case hour < 17:
			d.leave[hour], d.arrive[hour] = 0.0011, 0.0012
		default:
			d.leave[hour], d.arrive[hour] = 0.007, 0.001
		}
		h.server.leave[hour], h.server.arrive[hour] = 0.00001, 0.02
	}
	h.desk.settle()
	h.server.settle()
	return h
}

// settle finds the shares at which a day ends as it began.
func (h *habit) settle() {
	on := 0.5
	for range 20 {
		for m := range h.on {
			h.on[m] = on
			on += (1-on)*h.arrive[m/60] - on*h.leave[m/60]
		}
	}
}

// next draws when a machine changes, after t seconds of a simulation that ends after horizon; start is its first hour.
func next(rng *rand.Rand, t, horizon uint32, start int, rates *[day]float64) uint32 {
	left := rng.ExpFloat64() * 60
	for at := t; at < horizon; {
		hour := at / hourSeconds
		rate := rates[(start+int(hour))%day]
		end := (hour + 1) * hourSeconds
		if all := float64(end-at) * rate; left > all {
			left -= all
			at = end
			continue
		}
		return at + uint32(left/rate) + 1
	}
	return never
}

// share returns how many machines are on.
func (h *habit) share(t uint32, start int) float64 {
	return h.on[(start*60+int(t)/60)%(day*60)]
}
