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
}

// NewTemplateCounts makes counts of the templates of these names.
func NewTemplateCounts(names []string, metrics prometheus.Registerer) (*TemplateCounts, error) {
	c := &TemplateCounts{names: slices.Clone(names), total: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "mythic_cache_ai_template_questions_total",
		Help: "Questions of templates, by template and what became of them: there (answered already), asked, then made, or dropped for budget or late; rows that make none: unfit, beyond.",
	}, []string{"template", "outcome"})}
	if err := register(metrics, c.total); err != nil {
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
