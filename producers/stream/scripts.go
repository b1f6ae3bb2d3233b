package stream

import (
	_ "embed"

	"github.com/redis/go-redis/v9"
)

// What each script takes and returns is written on its top. All but take, trim,
// heads and once run seldom, so they are sent whole (EVAL): a pipeline cannot mend a
// script that Redis has forgotten.
var (
	//go:embed park.lua
	parkScript string
	//go:embed take.lua
	takeSource string
	//go:embed lease.lua
	leaseScript string
	//go:embed bury.lua
	buryScript string
	//go:embed replay.lua
	replayScript string
	//go:embed leave.lua
	leaveScript string
	//go:embed trim.lua
	trimSource string
	//go:embed heads.lua
	headsSource string
	//go:embed extent.lua
	extentScript string
	//go:embed once.lua
	onceSource string
	//go:embed unread.lua
	unreadScript string
)

func newScript(source string) *redis.Script { return redis.NewScript(source) }
