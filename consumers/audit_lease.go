package consumers

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
)

// soleLease lets one process at a time do something that more of them would do in
// vain. Whoever dies is succeeded when the lease has run out. It is no lock: for some
// moments two may hold it, and what they do is harmless when it is done twice.
type soleLease struct {
	client redis.UniversalClient
	name   string
	holder string
	life   time.Duration
}

// take takes the lease or renews it, and reports whether this process has it.
func (l *soleLease) take(ctx context.Context) (bool, error) {
	took, err := l.client.SetNX(ctx, l.name, l.holder, l.life).Result()
	if err != nil {
		return false, fmt.Errorf("take the lease %s: %w", l.name, err)
	}
	if took {
		return true, nil
	}
	has, err := l.has(ctx)
	if err != nil || !has {
		return false, err
	}
	if err := l.client.PExpire(ctx, l.name, l.life).Err(); err != nil {
		return false, fmt.Errorf("renew the lease %s: %w", l.name, err)
	}
	return true, nil
}

// give returns the lease, also when the caller's context has ended.
func (l *soleLease) give(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if has, err := l.has(ctx); err != nil || !has {
		return err
	}
	return l.client.Del(ctx, l.name).Err()
}

func (l *soleLease) has(ctx context.Context) (bool, error) {
	holder, err := l.client.Get(ctx, l.name).Result()
	if errors.Is(err, redis.Nil) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look who has the lease %s: %w", l.name, err)
	}
	return holder == l.holder, nil
}
