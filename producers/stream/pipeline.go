package stream

import (
	"context"

	"github.com/redis/go-redis/v9"
)

// execute sends a pipeline, after which each command has its own error. go-redis gives
// them none where Redis refuses a new connection (LOADING, too many clients): they
// would seem to have worked.
func execute(ctx context.Context, pipe redis.Pipeliner) {
	cmds, err := pipe.Exec(ctx)
	if err == nil {
		return
	}
	for _, cmd := range cmds {
		if cmd.Err() != nil {
			return
		}
	}
	for _, cmd := range cmds {
		cmd.SetErr(err)
	}
}
