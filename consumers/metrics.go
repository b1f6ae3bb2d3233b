package consumers

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// register puts collectors into a registry; there may be none.
func register(into prometheus.Registerer, collectors ...prometheus.Collector) error {
	if into == nil {
		return nil
	}
	var errs []error
	for _, c := range collectors {
		errs = append(errs, into.Register(c))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("register metrics: %w", err)
	}
	return nil
}
