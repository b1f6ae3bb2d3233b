package cache

import "time"

// Heard returns when the last sign of life was asked for that a reader's link gave:
// what was written before has been heard of.
func (r *Reader) Heard() time.Time { return r.near.began.Add(time.Duration(r.near.proven.Load())) }

// Held returns what a reader keeps in memory.
func (r *Reader) Held() (entries int, bytes int64) { return r.near.held() }

// Alone returns how many a reader has admitted without Redis.
func (r *Reader) Alone() uint64 { return r.alone.Load() }

// Waiting returns how many reads wait to be sent.
func (r *Reader) Waiting() int { return len(r.pipeline.queue) }
