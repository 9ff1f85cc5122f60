package rescue

import "github.com/keepout-security/keepout/internal/rescue/plan"

// keyFrom reads what a terminal sends for a key in one piece: the escape sequences of the Linux console, xterm and
// VT220, and the digits, because a serial line may have no function keys.
func keyFrom(sequence string) plan.Key {
	switch sequence {
	case "\x1b[[B", "\x1bOQ", "\x1b[12~", "2":
		return plan.Details
	case "\x1b[19~", "8":
		return plan.Safe
	case "\x1b[21~", "0":
		return plan.Off
	case "\r", "\n":
		return plan.Again
	}
	return ""
}
