package main

import (
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/caarlos0/env/v11"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/rs/zerolog"

	"mythiccache/cache"
	"mythiccache/cache/view"
	"mythiccache/consumers"
)

// config is the environment. Every field is described in the README.
type config struct {
	DatabaseURL       string   `env:"DATABASE_URL"`
	DatabaseListenURL string   `env:"DATABASE_LISTEN_URL"`
	RedisURL          string   `env:"REDIS_URL" envDefault:"redis://127.0.0.1:6379/0"`
	HTTPAddr          string   `env:"HTTP_ADDR" envDefault:":8001"`
	CacheTTL          duration `env:"REDIS_CACHE_TTL" envDefault:"3600"`
	SessionTTL        duration `env:"REDIS_SESSION_TTL" envDefault:"86400"`
	RunStatusTTL      duration `env:"RUN_STATUS_TTL" envDefault:"30"`
	UserBooksTTL      duration `env:"USER_BOOKS_TTL" envDefault:"1800"`
	ViewsFile         string   `env:"VIEWS_FILE"`
	Prefix            string   `env:"CACHE_PREFIX" envDefault:"mythic:"`
	AuthMode          string   `env:"AUTH_MODE" envDefault:"jwt"`
	AuthJWKS          string   `env:"AUTH_JWKS"`
	AuthJWTSecret     string   `env:"AUTH_JWT_SECRET"`
	AuthIssuer        string   `env:"AUTH_ISSUER"`
	AuthAudience      string   `env:"AUTH_AUDIENCE"`
	AuthLeeway        duration `env:"AUTH_LEEWAY" envDefault:"5s"`
	AdminToken        string   `env:"ADMIN_TOKEN"`
	EventsToken       string   `env:"EVENTS_TOKEN"`
	RateLimits        string   `env:"RATE_LIMITS" envDefault:"default=100/1m,/status=600/1m"`
	CORSOrigins       string   `env:"CORS_ORIGINS"`
	TLSCert           string   `env:"TLS_CERT"`
	TLSKey            string   `env:"TLS_KEY"`
	MaxConns          int      `env:"MAX_CONNS" envDefault:"16384"`
	MaxWatchers       int      `env:"MAX_WATCHERS" envDefault:"10000"`
	WatchersPerCaller int      `env:"MAX_WATCHERS_PER_CALLER" envDefault:"20"`
	LLMBaseURL        string   `env:"LLM_BASE_URL"`
	LLMAPIKey         string   `env:"LLM_API_KEY"`
	LLMModel          string   `env:"LLM_MODEL"`
	AIModels          string   `env:"AI_MODELS"`
	AISharedModels    string   `env:"AI_SHARED_MODELS"`
	AICacheKey        string   `env:"AI_CACHE_KEY"`
	AICacheTruncated  bool     `env:"AI_CACHE_TRUNCATED"`
	AIBudgets         string   `env:"AI_BUDGETS"`
	AIPrices          string   `env:"AI_PRICES"`
	AIWarmFile        string   `env:"AI_WARM_FILE"`
	AIRefreshReads    int      `env:"AI_REFRESH_READS" envDefault:"3"`
	OutboxRetention   duration `env:"OUTBOX_RETENTION"`
	OutboxWarnSize    size     `env:"OUTBOX_WARN_SIZE" envDefault:"1GiB"`
	StaleFor          duration `env:"STALE_FOR" envDefault:"5m"`
	AuditRate         float64  `env:"AUDIT_RATE" envDefault:"5"`
	NearCacheBytes    size     `env:"NEAR_CACHE_BYTES" envDefault:"64MiB"`
	LogLevel          string   `env:"LOG_LEVEL" envDefault:"info"`
	LogFormat         string   `env:"LOG_FORMAT" envDefault:"json"`

	views     *view.Set
	templates *view.Templates // nil: none
	aiKeys    cache.AnswerKeys
	budgets   consumers.Budgets
	prices    consumers.Prices
}

// auditRateMost is more than one worker can compare.
const auditRateMost = 10_000

// duration is 90s, 30m or a whole number of seconds.
type duration time.Duration

// longestDuration keeps sums of durations, and moments that far off, in their range.
const longestDuration = 100 * 365 * 24 * time.Hour

// UnmarshalText reads either form; it takes no negative ones.
func (d *duration) UnmarshalText(text []byte) error {
	if seconds, err := strconv.ParseInt(string(text), 10, 64); err == nil && seconds >= 0 {
		if seconds > int64(longestDuration/time.Second) {
			return fmt.Errorf("%s seconds are more than %d", text, longestDuration/time.Second)
		}
		*d = duration(time.Duration(seconds) * time.Second)
		return nil
	}
	got, err := time.ParseDuration(string(text))
	if err != nil || got < 0 {
		return fmt.Errorf("%q is not a duration: write 90s, 30m or whole seconds", text)
	}
	if got > longestDuration {
		return fmt.Errorf("%s is longer than %s", text, longestDuration)
	}
	*d = duration(got)
	return nil
}

// size is a number of bytes, also written 512MiB, 1GiB or 2GB.
type size int64

// UnmarshalText reads a whole number with or without a unit.
func (s *size) UnmarshalText(text []byte) error {
	digits := strings.TrimRight(string(text), "KkMGTiB")
	unit, known := map[string]int64{
		"": 1, "B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12, "KiB": 1 << 10, "kiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40,
	}[string(text[len(digits):])]
	number, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || !known || number < 0 || number > math.MaxInt64/unit {
		return fmt.Errorf("%q is no size: write 512MiB, 1GiB or whole bytes", text)
	}
	*s = size(number * unit)
	return nil
}

// String writes a size for people.
func (s size) String() string {
	for _, unit := range []struct {
		name  string
		bytes size
	}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if s >= unit.bytes {
			return strconv.FormatFloat(float64(s)/float64(unit.bytes), 'f', 1, 64) + " " + unit.name
		}
	}
	return fmt.Sprintf("%d bytes", int64(s))
}

// config reads and checks the environment. Its errors name the variables, all
// wrong ones at once.
func (p *program) config() (*config, error) {
	environment := env.ToMap(p.environ)
	var c config
	var wrong []error
	if err := env.ParseWithOptions(&c, env.Options{Environment: environment}); err != nil {
		wrong = append(wrong, namedByVariable(err)...)
	}
	reject := func(name, why string, args ...any) {
		wrong = append(wrong, fmt.Errorf(name+": "+why, args...))
	}
	if c.DatabaseURL != "" {
		if _, err := pgxpool.ParseConfig(c.DatabaseURL); err != nil {
			// pgx's sentence may quote the string, password included.
			reject("DATABASE_URL", "is no connection string that PostgreSQL's clients understand, such as postgres://user@host:5432/database")
		}
	}
	if c.DatabaseListenURL == "" {
		c.DatabaseListenURL = c.DatabaseURL
	} else if _, err := pgxpool.ParseConfig(c.DatabaseListenURL); err != nil {
		reject("DATABASE_LISTEN_URL", "is no connection string that PostgreSQL's clients understand")
	}
	if _, err := parseRedisURL(c.RedisURL); err != nil {
		reject("REDIS_URL", "%w", err)
	}
	if _, _, err := net.SplitHostPort(c.HTTPAddr); err != nil {
		reject("HTTP_ADDR", "%q is not host:port or :port", c.HTTPAddr)
	}
	if strings.ContainsAny(c.Prefix, "{} \t\r\n") || c.Prefix == "" {
		reject("CACHE_PREFIX", "%q must be there and hold neither braces nor spaces", c.Prefix)
	}
	if _, err := zerolog.ParseLevel(c.LogLevel); err != nil || c.LogLevel == "" {
		reject("LOG_LEVEL", "%q is none of trace, debug, info, warn, error", c.LogLevel)
	}
	if c.MaxWatchers < 1 {
		reject("MAX_WATCHERS", "%d is no number of watchers from 1 on", c.MaxWatchers)
	}
	if c.WatchersPerCaller < 1 {
		reject("MAX_WATCHERS_PER_CALLER", "%d is no number of watchers from 1 on", c.WatchersPerCaller)
	}
	if c.MaxConns < 0 {
		reject("MAX_CONNS", "%d is no number of connections; 0 is any number", c.MaxConns)
	}
	if c.LogFormat != "json" && c.LogFormat != "console" {
		reject("LOG_FORMAT", "%q is neither json nor console", c.LogFormat)
	}
	if !(c.AuditRate >= 0 && c.AuditRate <= auditRateMost) { // so that it finds what is no number, too
		reject("AUDIT_RATE", "%g is no number of entries a second from 0 to %d", c.AuditRate, auditRateMost)
	}
	c.checkLeeway(reject)
	if _, err := c.models(); err != nil {
		wrong = append(wrong, err)
	}
	c.readAI(reject)
	c.checkTTLs(reject)
	if views, err := loadViews(&c, environment); err != nil {
		wrong = append(wrong, err)
	} else {
		c.views = views
		c.checkRetention(reject)
		c.fitLimits(environment)
		if c.templates, err = loadTemplates(&c, environment); err != nil {
			wrong = append(wrong, err)
		}
	}
	return &c, errors.Join(wrong...)
}

// readAI reads what is said of models.
func (c *config) readAI(reject func(name, why string, args ...any)) {
	var err error
	if c.aiKeys, err = cache.ParseAnswerKeys(c.AICacheKey); err != nil {
		reject("AI_CACHE_KEY", "%w", err)
	}
	if c.budgets, err = consumers.ParseBudgets(c.AIBudgets); err != nil {
		reject("AI_BUDGETS", "%w", err)
	}
	if c.prices, err = consumers.ParsePrices(c.AIPrices); err != nil {
		reject("AI_PRICES", "%w", err)
	}
	if c.AIRefreshReads < 0 {
		reject("AI_REFRESH_READS", "%d is no number of reads; 0 makes no answer again before its time", c.AIRefreshReads)
	}
}

// checkTTLs refuses times that are too short to be of use.
func (c *config) checkTTLs(reject func(name, why string, args ...any)) {
	for _, ttl := range []struct {
		name  string
		value duration
	}{{"REDIS_CACHE_TTL", c.CacheTTL}, {"REDIS_SESSION_TTL", c.SessionTTL}, {"RUN_STATUS_TTL", c.RunStatusTTL}, {"USER_BOOKS_TTL", c.UserBooksTTL}} {
		if ttl.value < duration(time.Second) {
			reject(ttl.name, "must be at least one second")
		}
	}
}

// checkLeeway refuses a leeway that is none any more.
func (c *config) checkLeeway(reject func(name, why string, args ...any)) {
	if time.Duration(c.AuthLeeway) > cache.MaxLeeway {
		reject("AUTH_LEEWAY", "%s is more than %s; a token would live so much longer than its issuer wants", time.Duration(c.AuthLeeway), cache.MaxLeeway)
	}
}

// checkRetention sets how long relayed rows stay in the outbox. They must
// outlive whatever a lost position could leave stale: the longest entry and its
// time as STALE.
func (c *config) checkRetention(reject func(name, why string, args ...any)) {
	var longest time.Duration
	for _, v := range c.views.All() {
		longest = max(longest, v.TTL)
	}
	least := longest + time.Duration(c.StaleFor)
	switch {
	case c.OutboxRetention == 0:
		c.OutboxRetention = duration(least)
	case time.Duration(c.OutboxRetention) < least:
		reject("OUTBOX_RETENTION", "%s is shorter than the longest TTL plus STALE_FOR, %s; a change could be forgotten while its old value is still cached", time.Duration(c.OutboxRetention), least)
	}
}

// fitLimits leaves the limit of Mythic's own path out of the default where the views
// have no such path: a limit of nothing is refused.
func (c *config) fitLimits(environment map[string]string) {
	if _, set := environment["RATE_LIMITS"]; set {
		return
	}
	for _, v := range c.views.All() {
		if v.HTTP != nil && strings.HasPrefix(v.HTTP.Path, "/status/") {
			return
		}
	}
	c.RateLimits, _, _ = strings.Cut(c.RateLimits, ",")
}

// loadViews reads VIEWS_FILE, or Mythic's own views where there is none.
func loadViews(c *config, environment map[string]string) (*view.Set, error) {
	lookup := func(name string) (string, bool) {
		value, ok := environment[name]
		return value, ok && value != ""
	}
	if c.ViewsFile == "" {
		return view.Parse("mythic.yaml", view.Mythic(), lookup)
	}
	text, err := os.ReadFile(c.ViewsFile)
	if err != nil {
		return nil, fmt.Errorf("VIEWS_FILE: %w", err)
	}
	return view.Parse(c.ViewsFile, text, lookup)
}

// namedByVariable turns the library's errors, which name Go fields, into
// sentences that name variables.
func namedByVariable(err error) []error {
	var all env.AggregateError
	if !errors.As(err, &all) {
		return []error{err}
	}
	var named []error
	for _, one := range all.Errors {
		var parse env.ParseError
		if field, ok := reflect.TypeFor[config]().FieldByName(parseField(one, &parse)); ok {
			named = append(named, fmt.Errorf("%s: %w", field.Tag.Get("env"), parse.Err))
			continue
		}
		named = append(named, one)
	}
	return named
}

func parseField(err error, parse *env.ParseError) string {
	if errors.As(err, parse) {
		return parse.Name
	}
	return ""
}

// needsDatabase reports, for commands that cannot do without it, that
// DATABASE_URL is missing.
func (c *config) needsDatabase() error {
	if c.DatabaseURL == "" {
		return errors.New("DATABASE_URL: is not set; it says where PostgreSQL is, for instance postgres://user@localhost:5432/mythic")
	}
	return nil
}

// logger writes to stderr in the configured form.
func (p *program) logger(c *config) zerolog.Logger {
	level, _ := zerolog.ParseLevel(c.LogLevel) // checked by config
	out := p.stderr
	if c.LogFormat == "console" {
		out = zerolog.ConsoleWriter{Out: p.stderr, TimeFormat: "15:04:05.000"}
	}
	return zerolog.New(out).Level(level).Hook(stamp{})
}

// stamp gives each line its time in milliseconds; zerolog's own is in seconds
// unless a package variable of its is changed.
type stamp struct{}

// Run implements zerolog.Hook.
func (stamp) Run(e *zerolog.Event, _ zerolog.Level, _ string) {
	e.Str(zerolog.TimestampFieldName, time.Now().UTC().Format("2006-01-02T15:04:05.000Z07:00"))
}
