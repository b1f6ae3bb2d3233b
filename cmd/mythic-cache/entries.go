package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/rs/zerolog"

	"mythiccache/cache"
	"mythiccache/cache/version"
	"mythiccache/cache/view"
	"mythiccache/consumers"
	"mythiccache/producers/stream"
)

type (
	inspectCommand struct {
		View string `arg:"" help:"Name of the view."`
		Key  string `arg:"" help:"Key of the entry."`
		Body bool   `help:"Print the body too. It may be somebody's data."`
	}
	purgeCommand struct {
		View  string `arg:"" optional:"" help:"Name of the view."`
		Key   string `arg:"" optional:"" help:"Key of the entry."`
		Whole string `name:"view" help:"Drop every entry of this view."`
		User  string `help:"Drop all that is this user's."`
	}
	verifyCommand struct {
		All bool `help:"Every entry, not a sample of 1000 of each view."`
	}
)

// verifySample is how many entries of each view verify looks at by default.
const verifySample = 1000

// verifyRate is how many entries a second it looks at, at most.
const verifyRate = 500

// withStore gives do the configuration and the store, and closes it.
func (p *program) withStore(ctx context.Context, do func(*config, *cache.Store) error) error {
	c, err := p.config()
	if err != nil {
		return err
	}
	target, err := parseRedisURL(c.RedisURL)
	if err != nil {
		return fmt.Errorf("REDIS_URL: %w", err)
	}
	store, err := cache.New(target.dial, cache.Options{Prefix: c.Prefix, StaleFor: time.Duration(c.StaleFor), AIKeys: c.aiKeys, Log: zerolog.Nop()})
	if err != nil {
		return fmt.Errorf("cache: %w", err)
	}
	defer store.Close()
	if err := store.Ping(ctx); err != nil {
		return fmt.Errorf("redis does not answer: %w", err)
	}
	return do(c, store)
}

// view looks a view up by name.
func (c *config) view(name string) (*view.View, error) {
	v, ok := c.views.Lookup(name)
	if !ok {
		return nil, fmt.Errorf("there is no view %q", name)
	}
	return v, nil
}

// Run shows one entry.
func (i inspectCommand) Run(ctx context.Context, p *program) error {
	return p.withStore(ctx, func(c *config, store *cache.Store) error {
		v, err := c.view(i.View)
		if err != nil {
			return err
		}
		in, err := store.Inspect(ctx, v, i.Key)
		if err != nil {
			return err
		}
		out := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
		fmt.Fprintf(out, "name\t%s\n", in.Name)
		fmt.Fprintf(out, "state\t%s\n", in.State)
		fmt.Fprintf(out, "a reader finds\t%s %s\n", in.Status, in.Why)
		if in.State != "absent" && in.State != "unknown" {
			fmt.Fprintf(out, "version\t%s (epoch %d)\n", in.Version, in.Version.Epoch())
			fmt.Fprintf(out, "snapshot\t%s\n", in.Entry.Snapshot)
			fmt.Fprintf(out, "saved\t%s\n", in.Entry.Saved.UTC().Format(time.RFC3339Nano))
			fmt.Fprintf(out, "fresh until\t%s\n", in.Entry.FreshUntil.UTC().Format(time.RFC3339Nano))
			fmt.Fprintf(out, "ETag\t%s\n", in.Entry.ETag)
			fmt.Fprintf(out, "TTL, size\t%s, %d bytes\n", in.TTL, in.Size)
		}
		if in.Holder != "" {
			fmt.Fprintf(out, "lease\t%s until %s\n", in.Holder, in.Deadline.UTC().Format(time.RFC3339Nano))
		}
		fmt.Fprintf(out, "view's fence\t%s (confirmed: %t)\n", in.Fence, in.Confirmed)
		if err := out.Flush(); err != nil {
			return err
		}
		if i.Body && in.Entry.Body != nil {
			_, err = fmt.Fprintf(p.stdout, "%s\n", in.Entry.Body)
		}
		return err
	})
}

// Run drops what was named.
func (r purgeCommand) Run(ctx context.Context, p *program) error {
	ways := 0
	for _, said := range []bool{r.View != "", r.Whole != "", r.User != ""} {
		if said {
			ways++
		}
	}
	if ways != 1 || (r.View == "") != (r.Key == "") {
		return errors.New("purge: name a view and a key, or --view, or --user, and only one of them")
	}
	return p.withStore(ctx, func(c *config, store *cache.Store) error {
		switch {
		case r.Whole != "":
			return p.purgeView(ctx, c, store, r.Whole)
		case r.User != "":
			return p.purgeUser(ctx, c, store, r.User)
		}
		v, err := c.view(r.View)
		if err != nil {
			return err
		}
		return p.purge(ctx, store, []cache.Change{{View: v, Key: r.Key}})
	})
}

func (p *program) purge(ctx context.Context, store *cache.Store, changes []cache.Change) error {
	n, err := store.Invalidate(ctx, changes)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(p.stdout, "%d dropped\n", n)
	return err
}

// purgeView drops every entry that is there now. A fill that has begun before
// may still be put: it has seen all that a fresh one would.
func (p *program) purgeView(ctx context.Context, c *config, store *cache.Store, name string) error {
	v, err := c.view(name)
	if err != nil {
		return err
	}
	if v.Model {
		return store.Fence(ctx, v, version.Version{})
	}
	keys, err := consumers.CachedKeys(ctx, store, v, 0)
	if err != nil {
		return err
	}
	changes := make([]cache.Change, len(keys))
	for i, key := range keys {
		changes[i] = cache.Change{View: v, Key: key}
	}
	return p.purge(ctx, store, changes)
}

// purgeUser drops the entries whose key the user is, and those that the user
// owns.
func (p *program) purgeUser(ctx context.Context, c *config, store *cache.Store, user string) error {
	var changes []cache.Change
	for _, v := range c.views.All() {
		if v.HTTP != nil && v.HTTP.Key == view.Caller {
			changes = append(changes, cache.Change{View: v, Key: user})
			continue
		}
		keys, err := consumers.CachedKeys(ctx, store, v, 0)
		if err != nil {
			return err
		}
		for _, key := range keys {
			in, err := store.Inspect(ctx, v, key)
			if err != nil {
				return err
			}
			if in.Entry.Owned && in.Entry.Owner == user {
				changes = append(changes, cache.Change{View: v, Key: key})
			}
		}
	}
	return p.purge(ctx, store, changes)
}

// Run audits and prints the outcome as JSON; exit status 1 on a mismatch, and where
// something could not be compared.
func (v verifyCommand) Run(ctx context.Context, p *program) error {
	return p.withStore(ctx, func(c *config, store *cache.Store) error {
		if err := c.needsDatabase(); err != nil {
			return err
		}
		pool, err := consumers.NewPool(ctx, c.DatabaseURL, 2)
		if err != nil {
			return fmt.Errorf("DATABASE_URL: %w", withoutURL(err))
		}
		defer pool.Close()
		loader, err := consumers.NewLoader(pool, consumers.LoaderOptions{Log: zerolog.Nop()})
		if err != nil {
			return err
		}
		o := consumers.VerifyOptions{Sample: verifySample, Rate: verifyRate, Road: roadOf(store, stream.NewKeys(c.Prefix))}
		if v.All {
			o.Sample = 0
		}
		audit, err := consumers.Verify(ctx, store, loader, c.views, o)
		if err != nil {
			return err
		}
		out := json.NewEncoder(p.stdout)
		out.SetIndent("", "  ")
		if err := out.Encode(audit); err != nil {
			return err
		}
		return outcome(audit)
	})
}

// outcome is nil where an audit has found nothing wrong and could read everything.
func outcome(audit consumers.Audit) error {
	var unread []string
	for _, f := range audit.Findings {
		if f.Verdict == consumers.Unread {
			unread = append(unread, f.View)
		}
	}
	slices.Sort(unread)
	switch {
	case len(unread) > 0:
		return fmt.Errorf("verify: could not read what SQL says of %d entries, of %s", len(unread), strings.Join(slices.Compact(unread), ", "))
	case audit.Wrong > 0:
		return exitError(1)
	}
	return nil
}
