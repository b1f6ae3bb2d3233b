package main

import (
	"testing"

	"mythiccache/consumers"
)

// A batch whose loads all come to no end has ended before its handler is given up.
func TestBatchesOfLoadsEndInTime(t *testing.T) {
	t.Parallel()
	pool, err := consumers.NewPool(t.Context(), "postgres://nobody@localhost/none", connections)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	loader, err := consumers.NewLoader(pool, consumers.LoaderOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if most := loader.BatchDeadline(); most >= batchFor {
		t.Errorf("a batch may take %s, and is given up after %s", most, batchFor)
	}
}
