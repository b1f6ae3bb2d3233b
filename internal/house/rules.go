package house

// module is the path of this module.
const module = "mythiccache"

// Import paths of drivers, as prefixes.
const (
	redis      = "github.com/redis/go-redis/v9"
	postgres   = "github.com/jackc/pgx/v5"
	watermill  = "github.com/ThreeDotsLabs/watermill"
	streams    = "github.com/ThreeDotsLabs/watermill-redisstream"
	yamlCodec  = "github.com/goccy/go-yaml"
	goose      = "github.com/pressly/goose/v3"
	model      = "github.com/openai/openai-go/v3"
	jcs        = "github.com/gowebpki/jcs"
	jwt        = "github.com/golang-jwt/jwt/v5"
	keySets    = "github.com/MicahParks/jwkset"
	crossSite  = "github.com/rs/cors"
	gzips      = "github.com/klauspost/compress/gzip"
	group      = "golang.org/x/sync"
	logging    = "github.com/rs/zerolog"
	metrics    = "github.com/prometheus/client_golang"
	metricData = "github.com/prometheus/client_model"
)

// everywhere may be imported by every package but those that are stdlib-only.
// What these bring along is not held against who imports them: the metrics
// library links net/http, and that makes no server of the store.
var everywhere = []string{logging, metrics, metricData}

// rule says what a package may import. Prefixes of paths; within this module,
// packages without the module's name in front.
type rule struct {
	pkg   string   // the package
	under bool     // and those below it that have no rule of their own
	plain bool     // stdlib only, not even logging and metrics
	may   []string // besides the standard library
	never []string // not even through others; the standard library's too
}

// rules is the table of the house. A package without a rule is refused, so that
// a new one is thought about.
var rules = []rule{
	{
		pkg: "cmd/mythic-cache", may: []string{"*"},
		never: []string{"internal"},
	},
	{
		pkg: "producers/event", plain: true,
		never: []string{"cache", "consumers", "api", "migrations", "cmd", "internal", redis, postgres, watermill, "net/http"},
	},
	{
		pkg: "producers/stream", may: []string{"producers/event", redis, watermill, streams, group},
		never: []string{"cache", "consumers", "api", "migrations", "cmd", "internal", postgres},
	},
	{
		pkg:   "producers",
		may:   []string{"producers/event", "producers/stream", "cache/view", "cache/version", "migrations", postgres, redis, watermill, goose, group},
		never: []string{"cache$", "consumers", "api", "cmd", "internal"},
	},
	{
		pkg: "cache/version", plain: true,
		never: []string{"producers", "consumers", "api", "migrations", "cmd", "internal", redis, postgres, watermill, "net/http"},
	},
	{
		pkg: "cache/view", may: []string{yamlCodec},
		never: []string{"cache$", "producers", "consumers", "api", "migrations", "cmd", "internal", redis, postgres, watermill, "net/http"},
	},
	{
		pkg: "cache", may: []string{"cache/view", "cache/version", redis, jcs, group},
		never: []string{"producers", "consumers", "api", "migrations", "cmd", "internal", postgres, watermill, "net/http"},
	},
	{
		pkg:   "consumers",
		may:   []string{"producers/event", "producers/stream", "cache", "cache/view", "cache/version", postgres, redis, watermill, model, group},
		never: []string{"producers$", "api", "migrations", "cmd", "internal"},
	},
	{
		pkg:   "api",
		may:   []string{"api/lane", "cache", "cache/view", "cache/version", "producers/event", redis, jwt, keySets, crossSite, gzips, group},
		never: []string{"producers$", "producers/stream", "consumers", "migrations", "cmd", "internal", postgres, watermill},
	},
	{
		pkg: "api/lane", plain: true,
		never: []string{"cache", "producers", "consumers", "migrations", "cmd", "internal"},
	},
	{
		pkg: "migrations", plain: true,
		never: []string{"producers", "cache", "consumers", "api", "cmd", "internal", redis, postgres, watermill, "net/http"},
	},
	// What does not ship may use what does.
	{pkg: "internal", under: true, may: []string{"*"}},
	{pkg: "examples", under: true, may: []string{"*"}},
}

// topLevel is what may stand in the module's first directory, besides names that
// begin with a dot.
var topLevel = []string{
	"api", "cache", "cmd", "consumers", "examples", "internal", "migrations", "producers",
	"ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "Dockerfile", "LICENSE", "Makefile", "README.md",
	"docker-compose.yaml", "go.mod", "go.sum",
}

// ignored are patterns of what work leaves behind and git ignores.
var ignored = []string{"bin", "*.test", "*.out", "*.prof", "__pycache__", "node_modules"}
