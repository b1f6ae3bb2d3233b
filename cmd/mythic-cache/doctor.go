package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"

	"mythiccache/api"
	"mythiccache/cache"
	"mythiccache/cache/view"
	"mythiccache/producers"
)

type doctorCommand struct{}

// finding is one thing that doctor looked at.
type finding struct {
	bad  bool
	what string
	mend string // how; empty where nothing is wrong
}

// Run looks at everything that could be misconfigured and says how to mend it;
// exit status 1 where something must be.
func (doctorCommand) Run(ctx context.Context, p *program) error {
	c, err := p.config()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	findings := c.examineSettings()
	findings = append(findings, c.examineRedis(ctx)...)
	findings = append(findings, c.examinePostgres(ctx)...)
	findings = append(findings, c.examineTemplates(ctx)...)
	bad := 0
	for _, f := range findings {
		mark := "ok  "
		if f.bad {
			mark, bad = "MEND", bad+1
		} else if f.mend != "" {
			mark = "note"
		}
		fmt.Fprintf(p.stdout, "%s  %s\n", mark, f.what)
		if f.mend != "" {
			fmt.Fprintf(p.stdout, "      → %s\n", f.mend)
		}
	}
	fmt.Fprintf(p.stdout, leastPrivilege, strings.Join(readingRights(c.views), "\n  "))
	if bad > 0 {
		return exitError(1)
	}
	return nil
}

// leastPrivilege is what a role for the worker needs when the schema was
// installed by somebody with more rights.
const leastPrivilege = `
Rights that suffice for a role mythic_worker that runs relay and workers:
  GRANT USAGE ON SCHEMA mythic_cache TO mythic_worker;
  GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON ALL TABLES IN SCHEMA mythic_cache TO mythic_worker;
  GRANT ALL ON ALL SEQUENCES IN SCHEMA mythic_cache TO mythic_worker;
  GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA mythic_cache TO mythic_worker;
  %s
The app's own role needs nothing.
`

// readingRights are the grants for what the views load: a view that reads a table
// without mapping it is refused, so the mapped ones are all there are.
func readingRights(views *view.Set) []string {
	var tables, schemas []string
	for _, v := range views.All() {
		for _, m := range v.Tables {
			schema := ""
			if i := strings.LastIndexByte(m.Table, '.'); i >= 0 {
				schema = m.Table[:i]
			}
			if schema == "mythic_cache" {
				continue // granted as a whole
			}
			tables = append(tables, m.Table)
			if schema != "" && schema != "public" {
				schemas = append(schemas, schema)
			}
		}
	}
	var rights []string
	if distinct := sortedSet(schemas); len(distinct) > 0 {
		rights = append(rights, "GRANT USAGE ON SCHEMA "+strings.Join(distinct, ", ")+" TO mythic_worker;")
	}
	if distinct := sortedSet(tables); len(distinct) > 0 {
		rights = append(rights, "GRANT SELECT ON "+strings.Join(distinct, ", ")+" TO mythic_worker;  -- what the views load")
	}
	return rights
}

func sortedSet(names []string) []string {
	slices.Sort(names)
	return slices.Compact(names)
}

func (c *config) examineSettings() []finding {
	var all []finding
	advise := func(missing bool, what, mend string) {
		if missing {
			all = append(all, finding{what: what, mend: mend})
		}
	}
	advise(c.AuthMode == "jwt" && c.AuthJWTSecret == "" && c.AuthJWKS == "", "neither AUTH_JWKS nor AUTH_JWT_SECRET is set: nobody can show a token",
		"say where the keys of your issuer are, or set the secret that your tokens are signed with")
	advise(c.AuthMode == "jwt" && c.AuthJWTSecret != "" && len(c.AuthJWTSecret) < api.MinSecret,
		fmt.Sprintf("AUTH_JWT_SECRET has %d bytes: it could be guessed from one token", len(c.AuthJWTSecret)), fmt.Sprintf("use at least %d random bytes (RFC 7518, section 3.2)", api.MinSecret))
	advise(c.AuthMode == "jwt" && c.AuthJWKS != "" && (c.AuthIssuer == "" || c.AuthAudience == ""),
		"AUTH_ISSUER or AUTH_AUDIENCE is not set: a token that the issuer gave for another app opens this one, too", "set both as your issuer writes them")
	advise(c.AuthMode == "header", "AUTH_MODE is header: whoever reaches the API directly can be anybody", "let only the gateway reach it")
	advise(c.EventsToken == "", "EVENTS_TOKEN is not set: POST /events is closed", "set it where the app publishes by HTTP")
	advise(c.AdminToken == "", "ADMIN_TOKEN is not set: what it guards is closed", "set it where you want to use it")
	advise(c.LLMBaseURL == "", "LLM_BASE_URL is not set: the demo model answers", "set it to your model server")
	return all
}

func (c *config) examineRedis(ctx context.Context) []finding {
	client, err := c.redisClient()
	if err != nil {
		return []finding{{true, err.Error(), "correct it"}}
	}
	defer client.Close()
	info, err := client.InfoMap(ctx, "server", "memory", "persistence", "cluster").Result()
	if err != nil {
		return []finding{{true, "Redis does not answer: " + err.Error(), "start it, or correct REDIS_URL"}}
	}
	all := examineRedisInfo(info, redisSetting(ctx, client, "maxmemory-policy"))
	all = append(all, examinePersistence(info["Persistence"]["aof_enabled"] == "1", redisSetting(ctx, client, "save"))...)
	all = append(all, c.examineNames(ctx, client)...)
	return append(all, c.examineDeadLetters(ctx, client), c.examineRevocations(ctx, client))
}

// examineNames tries whether a connection may be named: what the near cache keeps must
// have come over one that is.
func (c *config) examineNames(ctx context.Context, client redis.UniversalClient) []finding {
	if c.NearCacheBytes == 0 {
		return nil
	}
	_, err := client.Pipelined(ctx, func(p redis.Pipeliner) error {
		p.Do(ctx, "client", "setname", "mythic-cache-doctor")
		p.ClientGetName(ctx)
		return nil
	})
	if err == nil {
		return nil
	}
	return []finding{{
		what: "NEAR_CACHE_BYTES is set, and a connection to Redis cannot be named, so nothing is kept in memory: " + err.Error(),
		mend: "ACL SETUSER … +client|getname +client|setname",
	}}
}

// examinePersistence says what a restart of Redis loses. Where CONFIG is forbidden, save
// is not known, and empty.
func examinePersistence(appends bool, save string) []finding {
	switch {
	case appends:
		return nil
	case save != "":
		return []finding{{
			what: "Redis has snapshots alone: a crash loses the revocations of tokens and the events by HTTP or XADD since the last one",
			mend: "appendonly yes",
		}}
	default:
		return []finding{{
			what: "Redis keeps nothing on disk, as far as can be seen: after a restart tokens that were revoked open again (but where OUTBOX_RETENTION still has the event), " +
				"sessions are over, and events by HTTP or XADD and the cache are lost",
			mend: "appendonly yes",
		}}
	}
}

// examineRevocations looks how many revocations there are: they take memory that Redis
// cannot take back.
func (c *config) examineRevocations(ctx context.Context, client redis.UniversalClient) finding {
	n, err := cache.CountRevocations(ctx, client, c.Prefix)
	if err != nil {
		return finding{true, err.Error(), "see that nothing of others is kept under " + c.Prefix + "revoked:"}
	}
	return foundRevocations(n)
}

func foundRevocations(n int64) finding {
	found := finding{what: fmt.Sprintf("%d revocations of tokens", n)}
	if n > cache.ManyRevocations {
		found.what += fmt.Sprintf(", some %s of memory", size(n*400))
		found.mend = "say expires_at in session.revoked: without it each is kept for 400 days"
	}
	return found
}

// redisSetting returns a setting, or what INFO says where CONFIG is forbidden.
func redisSetting(ctx context.Context, client redis.UniversalClient, name string) string {
	got, err := client.ConfigGet(ctx, name).Result()
	if err != nil {
		return ""
	}
	return got[name]
}

func examineRedisInfo(info map[string]map[string]string, policy string) []finding {
	var all []finding
	server := info["Server"]["redis_version"]
	major, _ := strconv.Atoi(strings.SplitN(server, ".", 2)[0])
	if major < 7 {
		all = append(all, finding{true, "Redis is " + server, "7.0 or newer is needed"})
	} else {
		all = append(all, finding{what: "Redis " + server})
	}
	if policy == "" {
		policy = info["Memory"]["maxmemory_policy"]
	}
	if strings.HasPrefix(policy, "allkeys-") {
		what := "maxmemory-policy is " + policy + ": Redis may throw away streams, the relay's position and revocations, whose tokens open again"
		all = append(all, finding{true, what, "CONFIG SET maxmemory-policy volatile-lfu (or noeviction)"})
	} else {
		all = append(all, finding{what: "maxmemory-policy " + policy})
	}
	if info["Cluster"]["cluster_enabled"] == "1" {
		all = append(all, finding{true, "Redis is a cluster", "give one server or its sentinels"})
	}
	return all
}

func (c *config) examinePostgres(ctx context.Context) []finding {
	conn, err := c.connect(ctx)
	if err != nil {
		return []finding{{true, "PostgreSQL: " + err.Error(), "start it, or correct DATABASE_URL"}}
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var all []finding
	var number, prepared int
	var standby bool
	err = conn.QueryRow(ctx, `SELECT current_setting('server_version_num')::int, pg_is_in_recovery(), current_setting('max_prepared_transactions')::int`).Scan(&number, &standby, &prepared)
	if err != nil {
		return []finding{{true, "PostgreSQL: " + err.Error(), "see its log"}}
	}
	all = append(all, finding{bad: number < 150000, what: fmt.Sprintf("PostgreSQL %d.%d", number/10000, number%10000), mend: unless(number >= 150000, "15 or newer is needed")})
	if standby {
		all = append(all, finding{true, "DATABASE_URL is a standby: nothing can be captured or loaded there", "give the primary"})
	}
	if prepared > 0 {
		all = append(all, finding{what: "max_prepared_transactions is not 0: nobody may ring the doorbell, the relay polls every 50 ms", mend: "set it to 0 where no PREPARE TRANSACTION is used"})
	}
	if err := pending(ctx, c.DatabaseURL); err != nil {
		return append(all, finding{true, err.Error(), "mythic-cache migrate up"})
	}
	all = append(all, finding{what: "schema mythic_cache is complete"})
	all = append(all, c.examineTriggers(ctx, conn)...)
	return append(all, c.examineOutbox(ctx, conn), c.examineListen(ctx), examineEpoch(ctx, conn))
}

// examineTriggers looks whether a change could go unnoticed.
func (c *config) examineTriggers(ctx context.Context, conn *pgx.Conn) []finding {
	drift, err := producers.Examine(ctx, conn, c.views)
	if err != nil {
		return []finding{{true, err.Error(), "run doctor as the role that runs the worker, when nothing holds a lock on its tables"}}
	}
	var all []finding
	for _, f := range drift.Findings {
		all = append(all, finding{bad: f.Unseen, what: driftSentence(f), mend: "bring tables and views together, then mythic-cache migrate up"})
	}
	if all == nil {
		all = append(all, finding{what: "the triggers match the views"})
	}
	return append(all, c.examineLoads(ctx, conn)...)
}

// examineLoads looks for loads that an audit cannot judge.
func (c *config) examineLoads(ctx context.Context, conn *pgx.Conn) []finding {
	unsteady, err := producers.Unsteady(ctx, conn, c.views)
	if err != nil {
		return []finding{{true, err.Error(), "run doctor as the role that runs the worker"}}
	}
	var all []finding
	for _, u := range unsteady {
		all = append(all, finding{
			what: fmt.Sprintf("the load of view %s may give another answer without any change: %s", u.View, u.Why),
			mend: "have it depend on rows alone, and lists on an ORDER BY; audits may call its entries wrong",
		})
	}
	return all
}

// driftSentence says what a finding does to its views.
func driftSentence(f producers.Finding) string {
	if !f.Unseen || len(f.Views) == 0 {
		return f.Why
	}
	return fmt.Sprintf("%s; until it is mended the relay invalidates all of %s each second", f.Why, strings.Join(f.Views, ", "))
}

// examineOutbox looks how much disk the outbox takes.
func (c *config) examineOutbox(ctx context.Context, conn *pgx.Conn) finding {
	bytes, err := producers.OutboxBytes(ctx, conn)
	if err != nil {
		return finding{true, err.Error(), "run doctor as the role that runs the worker"}
	}
	what := fmt.Sprintf("the outbox has %s", size(bytes))
	if c.OutboxWarnSize == 0 || size(bytes) <= c.OutboxWarnSize {
		return finding{what: what}
	}
	return finding{true, fmt.Sprintf("%s, more than OUTBOX_WARN_SIZE, %s", what, c.OutboxWarnSize),
		"see why the relay does not send (/readyz, mythic_cache_relay_backlog_rows), or that it is only what OUTBOX_RETENTION keeps"}
}

// examineListen tries the doorbell: a pooler in transaction mode swallows it.
func (c *config) examineListen(ctx context.Context) finding {
	const mend = "give DATABASE_LISTEN_URL a direct connection, not a pooler in transaction mode"
	listener, err := pgx.Connect(ctx, c.DatabaseListenURL)
	if err != nil {
		return finding{true, "DATABASE_LISTEN_URL: " + withoutURL(err).Error(), "correct it"}
	}
	defer listener.Close(context.WithoutCancel(ctx))
	if _, err := listener.Exec(ctx, `LISTEN mythic_cache_doctor`); err != nil {
		return finding{true, "LISTEN: " + err.Error(), mend}
	}
	// In a statement of its own: through a pooler it may run elsewhere.
	if _, err := listener.Exec(ctx, `NOTIFY mythic_cache_doctor`); err != nil {
		return finding{true, "NOTIFY: " + err.Error(), mend}
	}
	wait, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	if _, err := listener.WaitForNotification(wait); err != nil {
		return finding{true, "a NOTIFY does not arrive", mend}
	}
	return finding{what: "LISTEN and NOTIFY work"}
}

func examineEpoch(ctx context.Context, conn *pgx.Conn) finding {
	var epoch *int64
	if err := conn.QueryRow(ctx, `SELECT mythic_cache.current_epoch()`).Scan(&epoch); err != nil {
		return finding{true, "epoch: " + err.Error(), "run doctor as the role that runs the worker"}
	}
	if epoch == nil {
		return finding{what: "there is no epoch yet: nothing is cached until a relay has run", mend: "mythic-cache run --roles relay"}
	}
	return finding{what: fmt.Sprintf("epoch %d", *epoch)}
}

func unless(fine bool, mend string) string {
	if fine {
		return ""
	}
	return mend
}
