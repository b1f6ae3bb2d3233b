package capture

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sync/errgroup"

	"mythiccache/internal/bench/gauge"
)

const (
	xminEvents  = 1_000_000
	xminBatch   = 500 // events in a transaction
	xminWriters = 4
	xminRows    = 200_000
	xminRounds  = 3
)

// xmin measures what a snapshot that somebody holds costs: rows that cannot be
// vacuumed away, and a slower drain.
func xmin(ctx context.Context, b *bed) ([]gauge.Line, error) {
	if err := b.run(ctx, b.ours); err != nil {
		return nil, err
	}
	if err := b.ours.settle(ctx); err != nil {
		return nil, err
	}
	var dead, others int
	var rate float64
	err := b.ours.holding(ctx, true, func() (err error) {
		if rate, err = b.ours.publishMany(ctx); err != nil {
			return err
		}
		dead, others, err = b.ours.dead(ctx)
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := b.ours.clear(ctx); err != nil {
		return nil, err
	}
	with, without, err := b.drainsHeld(ctx)
	if err != nil {
		return nil, err
	}
	return []gauge.Line{
		{
			Figure: fmt.Sprintf("dead rows in the outbox after %d events, xmin held", xminEvents), Reach: "0", Measured: strconv.Itoa(dead), Reached: dead == 0,
			Notes: []string{
				fmt.Sprintf("counted by VACUUM (VERBOSE), removed or not; in the other tables of schema mythic_cache %d", others),
				fmt.Sprintf("%.0f events/s were published and relayed meanwhile", rate),
			},
		},
		{
			Figure: fmt.Sprintf("drain of %d rows, rows/s, xmin held", xminRows), Reach: "≥ 0.95 of without",
			Measured: gauge.Spread("%.0f", with), Baseline: "without " + gauge.Spread("%.0f", without),
			Ratio: fmt.Sprintf("%.2f", gauge.Ratio(with, without)), Reached: gauge.Ratio(with, without) >= .95,
		},
	}, nil
}

// drainsHeld drains rows in turn with xmin held from before they were written,
// and without.
func (b *bed) drainsHeld(ctx context.Context) (with, without []float64, err error) {
	if err := b.run(ctx); err != nil {
		return nil, nil, err
	}
	w := backlogs()[0]
	for round := range xminRounds {
		for turn := range 2 {
			held := (round+turn)%2 == 1
			var d drained
			err := b.ours.holding(ctx, held, func() (err error) {
				if err := b.ours.leave(ctx, w, xminRows); err != nil {
					return err
				}
				d, err = b.ours.drainOnce(ctx, w.topic, xminRows)
				return err
			})
			if err != nil {
				return nil, nil, err
			}
			if err := b.ours.clear(ctx); err != nil {
				return nil, nil, err
			}
			if held {
				with = append(with, d.steady(xminRows))
			} else {
				without = append(without, d.steady(xminRows))
			}
		}
	}
	return with, without, nil
}

// holding runs do beside an open snapshot, where asked to.
func (c *contestant) holding(ctx context.Context, held bool, do func() error) (err error) {
	if !held {
		return do()
	}
	holder, err := connect(ctx, c.url)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, holder.Close(context.WithoutCancel(ctx))) }()
	if _, err := holder.Exec(ctx, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM users"); err != nil {
		return fmt.Errorf("hold a snapshot: %w", err)
	}
	return do()
}

// publishMany publishes events while the relay runs and returns how many went
// into the stream in a second, each of them once.
func (c *contestant) publishMany(ctx context.Context) (float64, error) {
	begun := time.Now()
	group, grouped := errgroup.WithContext(ctx)
	for writer := range xminWriters {
		group.Go(func() error {
			conn, err := connect(grouped, c.url)
			if err != nil {
				return err
			}
			defer conn.Close(context.WithoutCancel(ctx))
			const publish = `SELECT count(mythic_cache.publish('held.event', 'subject ' || n, jsonb_build_object('n', n)))
				FROM generate_series($1::int, $2::int) AS n`
			for n := writer * xminBatch; n < xminEvents; n += xminWriters * xminBatch {
				if _, err := conn.Exec(grouped, publish, n, n+xminBatch-1); err != nil {
					return fmt.Errorf("publish: %w", err)
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return 0, err
	}
	if err := c.caughtUp(ctx); err != nil {
		return 0, err
	}
	took := time.Since(begun)
	n, err := c.entries(ctx, "held")
	if err == nil && n != xminEvents {
		err = fmt.Errorf("%d events became %d entries", xminEvents, n)
	}
	return xminEvents / took.Seconds(), err
}

// tuples is what VACUUM (VERBOSE) says of a table, since PostgreSQL 15 in one message.
var tuples = regexp.MustCompile(`tuples: (\d+) removed, \d+ remain, (\d+) are dead but not yet removable`)

// dead counts the rows that nobody wants any more, in the outbox and in what else
// the schema holds. It is exact while a snapshot from before them is held, since
// no reader then prunes a page on its way.
func (c *contestant) dead(ctx context.Context) (outbox, others int, err error) {
	rows, err := c.conn.Query(ctx, `SELECT c.oid::regclass::text, EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = c.oid AND i.inhparent = 'mythic_cache.outbox'::regclass)
		FROM pg_class c WHERE c.relnamespace = 'mythic_cache'::regnamespace AND c.relkind = 'r'`)
	if err != nil {
		return 0, 0, fmt.Errorf("list the tables: %w", err)
	}
	ofOutbox := map[string]bool{}
	var name string
	var is bool
	if _, err := pgx.ForEachRow(rows, []any{&name, &is}, func() error { ofOutbox[name] = is; return nil }); err != nil {
		return 0, 0, fmt.Errorf("list the tables: %w", err)
	}
	for name, is := range ofOutbox {
		n, err := c.deadIn(ctx, name)
		if err != nil {
			return 0, 0, err
		}
		if is {
			outbox += n
		} else {
			others += n
		}
	}
	return outbox, others, nil
}

func (c *contestant) deadIn(ctx context.Context, table string) (int, error) {
	config, err := pgx.ParseConfig(c.url)
	if err != nil {
		return 0, fmt.Errorf("connect: %w", err)
	}
	total, told := 0, false
	config.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) {
		for _, found := range tuples.FindAllStringSubmatch(n.Message, -1) {
			for _, text := range found[1:] {
				if count, err := strconv.Atoi(text); err == nil {
					total, told = total+count, true
				}
			}
		}
	}
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return 0, fmt.Errorf("connect: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if _, err := conn.Exec(ctx, "VACUUM (VERBOSE) "+table); err != nil {
		return 0, fmt.Errorf("vacuum %s: %w", table, err)
	}
	if !told {
		return 0, fmt.Errorf("VACUUM (VERBOSE) says nothing of the dead rows of %s", table)
	}
	return total, nil
}
