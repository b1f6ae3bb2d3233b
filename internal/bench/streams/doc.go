// Package streams measures how fast events go into and out of Redis Streams,
// beside the stock watermill-redisstream and a bare loop over XREADGROUP, in one
// run: `make bench-streams`.
//
// The contestants read the very same entries, each in a group of its own, in turn;
// medians of repetitions are compared. "stock" is the library with the options it
// has by itself, "bare" is what one would write in an afternoon and well: read 500,
// do, acknowledge, nothing beside. Neither parks, claims, buries or measures.
//
// It does not promise figures that hold on another machine: trust the ratios. A
// figure that is missed is a result, not an error. Everything that Run starts has
// ended when it returns.
package streams
