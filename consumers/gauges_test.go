package consumers

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"mythiccache/producers/stream"
)

// Groups and topics of others may be called anything. A name that is no text does not
// end the scrape, nor do two that look alike.
func TestGaugesOfNamesThatAreNoText(t *testing.T) {
	t.Parallel()
	g, metrics := newGauges(), prometheus.NewRegistry()
	if err := metrics.Register(g); err != nil {
		t.Fatal(err)
	}
	g.show(census{
		at: time.Now(),
		groups: []stream.GroupState{
			{Group: "mine", Topic: "things", Lag: 1}, {Group: "\xff", Topic: "things", Lag: 2}, {Group: "\xfe", Topic: "things", Lag: 3},
		},
		dead: map[stream.GroupTopic]int64{{Group: "mine", Topic: "\xff"}: 4},
	})
	families, err := metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	shown := map[string]float64{}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			words := []string{strings.TrimPrefix(family.GetName(), "mythic_cache_stream_")}
			for _, l := range m.GetLabel() {
				words = append(words, l.GetValue())
			}
			shown[strings.Join(words, " ")] = m.GetGauge().GetValue()
		}
	}
	for name, want := range map[string]float64{
		`lag mine things`: 1, `lag "\xff" things`: 2, `lag "\xfe" things`: 3, `dead_letters mine "\xff"`: 4,
	} {
		if got, ok := shown[name]; !ok || got != want {
			t.Errorf("%s is %v, want %v; shown is %v", name, got, want, shown)
		}
	}
}
