package stream

import (
	"fmt"
	"testing"

	"github.com/redis/go-redis/v9"

	"mythiccache/internal/testserver"
)

// Commands of a pipeline for which Redis grants no connection have not worked.
func TestPipelineWithoutAConnectionHasErrors(t *testing.T) {
	server := testserver.NewRedis(t)
	if err := server.Client(t).ACLSetUser(t.Context(), "stranger", "on", ">right", "~*", "+@all").Err(); err != nil {
		t.Fatal(err)
	}
	client := redis.NewClient(&redis.Options{Addr: fmt.Sprintf("127.0.0.1:%d", server.Port), Username: "stranger", Password: "wrong"})
	defer client.Close()
	pipe := client.Pipeline()
	cmds := []*redis.IntCmd{pipe.XAck(t.Context(), "s", "g", "1-0"), pipe.XAck(t.Context(), "s", "g", "2-0")}
	execute(t.Context(), pipe)
	for i, cmd := range cmds {
		if cmd.Err() == nil {
			t.Errorf("command %d seems to have worked", i)
		}
	}
}
