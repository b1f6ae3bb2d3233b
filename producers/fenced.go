package producers

import (
	"context"
	_ "embed"
	"fmt"

	"github.com/redis/go-redis/v9"
)

//go:embed fenced.lua
var fencedLua string

// shapeField is the field of the position that says at which shape a view was
// last fenced. It is kept there so that a leader that finds another shape than its
// predecessor fenced at knows what was done while nobody led.
func shapeField(view string) string { return "shape:" + view }

// Fenced returns the shapes that views were last fenced at, "" for none.
func (s *streams) Fenced(ctx context.Context, views []string) ([]string, error) {
	fields := make([]string, len(views))
	for i, name := range views {
		fields[i] = shapeField(name)
	}
	var found []any
	err := s.patience.call(ctx, func(ctx context.Context) (err error) {
		found, err = s.client.HMGet(ctx, s.keys.Position(), fields...).Result()
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read from Redis at which shapes views were fenced: %w", err)
	}
	shapes := make([]string, len(views))
	for i := range found {
		shapes[i], _ = found[i].(string)
	}
	return shapes, nil
}

// NoteFenced notes shapes that views were fenced at.
func (s *streams) NoteFenced(ctx context.Context, at position, shapes map[string]shape) error {
	args := []any{at.String()}
	for name, shape := range shapes {
		args = append(args, shapeField(name), shape.String())
	}
	return s.run(ctx, redis.NewScript(fencedLua), args...)
}
