package cache_test

import (
	"context"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"mythiccache/cache"
	"mythiccache/internal/testserver"
)

type Book struct {
	ID    string `json:"id"`
	Title string `json:"title"`
}

// connect makes a store of the Redis at an address, and waiters that hear until
// stop is called.
func connect(ctx context.Context, url string) (store *cache.Store, waiters *cache.Waiters, stop func(), err error) {
	options, err := redis.ParseURL(url)
	if err != nil {
		return nil, nil, nil, err
	}
	options.ContextTimeoutEnabled = true
	store, err = cache.New(func(onConnect func(context.Context, *redis.Conn) error) (redis.UniversalClient, error) {
		options.OnConnect = onConnect
		return redis.NewClient(options), nil
	}, cache.Options{})
	if err != nil {
		return nil, nil, nil, err
	}
	waiters = store.NewWaiters()
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() { _ = waiters.Run(ctx) })
	return store, waiters, func() {
		cancel()
		running.Wait()
		_ = store.Close()
	}, nil
}

func ExampleThrough() {
	ctx := context.Background()
	url, end := startRedis(ctx)
	defer end()
	store, waiters, stop, err := connect(ctx, url)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer stop()

	books, err := cache.NewThrough(store, waiters, cache.ThroughOptions[Book]{View: "book_by_id", TTL: 10 * time.Minute})
	if err != nil {
		fmt.Println(err)
		return
	}
	title := "A Year in Pictures"
	load := func(context.Context) (Book, error) {
		fmt.Println("loading")
		return Book{ID: "7", Title: title}, nil
	}
	show := func() {
		book, err := books.Do(ctx, "7", load)
		fmt.Println(book.Title, err)
	}
	show()
	show()

	title = "Two Years in Pictures"
	if err := books.Forget(ctx, "7"); err != nil {
		fmt.Println(err)
	}
	show()
	// Output:
	// loading
	// A Year in Pictures <nil>
	// A Year in Pictures <nil>
	// loading
	// Two Years in Pictures <nil>
}

// startRedis starts a server for the example.
func startRedis(ctx context.Context) (url string, end func()) {
	dir, err := os.MkdirTemp("", "example-")
	if err != nil {
		panic(err)
	}
	r, err := testserver.StartRedis(ctx, testserver.RedisOptions{Dir: dir})
	if err != nil {
		panic(err)
	}
	return r.URL(), func() {
		r.Stop()
		os.RemoveAll(dir)
	}
}
