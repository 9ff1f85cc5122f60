package drill

import (
	"fmt"
	"strings"
)

// channel writes a channel file of 21 fields, all wildcards but the path and the last.
func channel(number int, path, last string) map[string]string {
	fields := make([]string, 21)
	for i := range fields {
		fields[i] = "*"
	}
	fields[1], fields[20] = path, last
	name := fmt.Sprintf("c-00000291-%08d.channel", number)
	return map[string]string{name: "# template instances of type 291\n" + strings.Join(fields, ",") + "\n"}
}

// channelFile is July 2024, three times: each layer is shown by taking away the one before.
func channelFile() []Drill {
	base := Drill{
		Group: "channel-file-291", Engine: channel291, Content: channel(1, "*/ransom", "*"),
		Update: channel(2, "*", "evil-pipe"), // the 21st criterion that is no wildcard
	}
	schema, trial, live := base, base, base
	schema.Name, schema.Title = "channel-file-291", "July 2024: content for 21 fields, 20 supplied"
	schema.Explanation = "The content's schema says 20 fields, and refuses the file."
	schema.Expect = []Expectation{
		{
			What: "config check names the field", See: Sight{Kind: seeCheck, Text: "field 21, pipe, is one of"},
		},
		{
			What: "the core refuses the update", See: Sight{Kind: seeRefused, Text: "KO-1007|field 21"},
		},
		{What: "the engine goes on with the old content", See: Sight{Kind: seeUntouched}},
	}
	trial.Name, trial.Title = "channel-file-291-unchecked", "the same without a schema: only the throw-away load can tell"
	trial.Explanation = "The schema is gone. The engine tries its content when it loads it, and crashes, in a cage " +
		"of its own."
	trial.NoSchema = true
	trial.Expect = []Expectation{
		{
			What: "the update is refused, with the crash", See: Sight{Kind: seeRefused, Text: "index out of range|crash|exit"},
		},
		{What: "the engine goes on with the old content", See: Sight{Kind: seeUntouched}},
	}
	live.Name, live.Title = "channel-file-291-live", "the same, and the load shows nothing: it hits the live host"
	live.Explanation = "Neither schema nor load is asked. The first event that matches reads the 21st of 20 inputs, as " +
		"on that Friday, but in a process that nobody needs."
	live.NoSchema, live.NoLoad, live.Update = true, true, channel(2, "*/good-*", "evil-pipe")
	live.Expect = []Expectation{
		lost(), restarted(), rolledBack(),
		{What: "it votes with the old content", See: Sight{Kind: seeContent, Text: "00000001"}},
	}
	return []Drill{schema, trial, live}
}
