package producers

import (
	"context"
	_ "embed"
	"fmt"
)

//go:embed fenced.lua
var fencedLua string

//go:embed fenced_note.lua
var fencedNoteLua string

// shapeField is the field of the position that says at which shape a view was
// last fenced. It is kept there so that a leader that finds another shape than its
// predecessor fenced at knows what was done while nobody led.
func shapeField(view string) string { return "shape:" + view }

// fencings are what one run of Redis has noted of fences.
type fencings struct {
	run    string            // its run_id
	shapes map[string]string // by view: the shape that it was last fenced at, "" for none
}

// Fenced returns the shapes that views were last fenced at, and in which run of Redis.
func (s *streams) Fenced(ctx context.Context, views []string) (fencings, error) {
	fields := make([]any, len(views))
	for i, name := range views {
		fields[i] = shapeField(name)
	}
	var found []string
	err := s.patience.call(ctx, func(ctx context.Context) (err error) {
		found, err = s.fenced.Run(ctx, s.client, []string{s.keys.Position()}, fields...).StringSlice()
		return err
	})
	if err != nil {
		return fencings{}, fmt.Errorf("read from Redis at which shapes views were fenced: %w", err)
	}
	if len(found) != 1+len(views) {
		return fencings{}, fmt.Errorf("read from Redis at which shapes views were fenced: a reply of %d strings for %d views", len(found), len(views))
	}
	f := fencings{run: found[0], shapes: map[string]string{}}
	for i, name := range views {
		f.shapes[name] = found[1+i]
	}
	return f, nil
}

// NoteFenced notes shapes that views were fenced at since a run of Redis was looked
// at. The error wraps errMoved, or errRestarted where it is another run by now.
func (s *streams) NoteFenced(ctx context.Context, at position, run string, shapes map[string]shape) error {
	args := []any{at.String(), run}
	for name, shape := range shapes {
		args = append(args, shapeField(name), shape.String())
	}
	return s.run(ctx, s.fencedNote, args...)
}
