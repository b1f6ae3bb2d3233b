package gauge

import (
	"context"
	"errors"
	"io"
)

// Options says what a benchmark measures, and with what.
type Options struct {
	Dir     string    // where servers may keep their data and logs, on a disk like a real one's
	Program string    // what is measured
	Names   []string  // of figures; all where there are none
	Out     io.Writer // gets the table
	Log     io.Writer // gets a sentence now and then, since it takes minutes
	Once    bool      // each contestant once, with a hundredth of the work, where figures know how: to try that they work
}

// Bed is what figures are measured on: servers, and the processes beside them.
type Bed interface {
	// Close ends all that was started, also where the context has ended.
	Close(context.Context) error
}

// Run makes a bed, measures the figures that are asked for one after the other and
// prints one table. What newBed has started has ended where it returns an error.
func Run[B Bed](ctx context.Context, o Options, figures []Figure[B], newBed func(context.Context, Options) (B, error)) error {
	chosen, err := choose(figures, o.Names)
	if err != nil {
		return err
	}
	bed, err := newBed(ctx, o)
	if err != nil {
		return err
	}
	return errors.Join(measure(ctx, chosen, bed, o.Out, o.Log), bed.Close(ctx))
}
