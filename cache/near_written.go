package cache

import (
	"context"

	"github.com/redis/go-redis/v9/push"
)

// writtenHandler takes what Redis tells of written keys: "invalidate" and the names,
// or nil in their place when it was flushed.
type writtenHandler struct{ near *near }

// HandlePushNotification implements go-redis's interface.
func (h writtenHandler) HandlePushNotification(_ context.Context, _ push.NotificationHandlerContext, said []any) error {
	if len(said) != 2 {
		h.near.forget() // not understood, so it may have been anything
		return nil
	}
	names, ok := said[1].([]any)
	if !ok {
		h.near.forget()
		return nil
	}
	for _, one := range names {
		name, ok := one.(string)
		if !ok {
			h.near.forget()
			return nil
		}
		h.near.written(name)
	}
	return nil
}
