package consumers

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/jackc/pgx/v5"

	"mythiccache/cache"
)

// judge tells transactions that a fill can have seen from those that it cannot,
// before the fill takes a lease.
type judge struct{ loader *Loader }

// judge returns the reason why no fill of now can have seen the transaction, or
// "". A transaction that has ended, either way, has been seen by every snapshot
// taken from now on.
func (j *judge) judge(ctx context.Context, asked *cache.MinXid) (reason string, err error) {
	if asked == nil {
		return "", nil
	}
	var status, epoch *string
	err = j.loader.read(ctx, query{
		sql:  "SELECT pg_xact_status($1::text::xid8), mythic_cache.current_epoch()::text",
		args: []any{strconv.FormatUint(asked.Xid, 10)},
		scan: func(rows pgx.Rows) error {
			_, err := pgx.CollectExactlyOneRow(rows, func(row pgx.CollectableRow) (struct{}, error) {
				return struct{}{}, row.Scan(&status, &epoch)
			})
			return err
		},
	})
	switch {
	case sqlState(err) == "22023": // "transaction ID … is in the future"
		return ReasonXidUnknown, nil
	case err != nil:
		return "", fmt.Errorf("judge a transaction: %w", err)
	case epoch == nil:
		return "", errors.Join(ErrNoEpoch, errors.New("judge a transaction"))
	case asked.Epoch != 0 && *epoch != strconv.FormatUint(asked.Epoch, 10):
		return ReasonXidUnknown, nil
	case status != nil && *status == "in progress":
		return ReasonXidOpen, nil
	}
	// No status: so long ago that PostgreSQL has forgotten how it ended.
	return "", nil
}
