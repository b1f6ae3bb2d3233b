package consumers

import (
	"fmt"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
)

// TemplateCounts count what becomes of the questions of templates. Of nil nothing is
// counted.
type TemplateCounts struct {
	names []string
	total *prometheus.CounterVec
	fit   prometheus.Gauge
}

// NewTemplateCounts makes counts of the templates of these names.
func NewTemplateCounts(names []string, metrics prometheus.Registerer) (*TemplateCounts, error) {
	c := &TemplateCounts{names: slices.Clone(names), total: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "mythic_cache_ai_template_questions_total",
		Help: "Questions of templates, by template and what became of them: there (answered already), coming (asked already), asked, then made, or dropped for budget or late; " +
			"rows that make none: unfit, beyond; events that begin none: late, refused (PostgreSQL refuses the query).",
	}, []string{"template", "outcome"}), fit: prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "mythic_cache_ai_templates_usable",
		Help: "1 where PostgreSQL takes the queries of all templates; 0: one is refused, and begins nothing, or was not judged yet.",
	})}
	if err := register(metrics, c.total, c.fit); err != nil {
		return nil, fmt.Errorf("templates: %w", err)
	}
	return c, nil
}

// count counts one. A template of a name that is not known here, which another
// release's worker or anybody's event may name, is not.
func (c *TemplateCounts) count(template, outcome string) {
	if c != nil && slices.Contains(c.names, template) {
		c.total.WithLabelValues(template, outcome).Inc()
	}
}

// usable says whether the queries can be used.
func (c *TemplateCounts) usable(is bool) {
	switch {
	case c == nil:
	case is:
		c.fit.Set(1)
	default:
		c.fit.Set(0)
	}
}
