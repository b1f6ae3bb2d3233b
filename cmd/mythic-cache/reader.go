package main

import (
	"fmt"

	"mythiccache/cache"
)

// addReader adds what the API reads with.
func (w *worker) addReader() (*cache.Reader, error) {
	reader, err := w.store.NewReader(cache.ReaderOptions{Views: w.views.All(), NearBytes: int64(w.NearCacheBytes), Metrics: w.metrics})
	if err != nil {
		return nil, fmt.Errorf("reader: %w", err)
	}
	w.api.add("reader", reader.Run)
	return reader, nil
}
