// Package ai measures the answers of models: `make bench-ai`.
//
// The program as it ships runs as relay and workers in one process and as API in
// another. This process is the model, which is told what to say and when, and all who
// ask it; so what passes between the two is by one clock, and the model's own work is
// on the same processors.
//
//	hit        a hit of /v1/chat/completions beside one of /status, one request at a
//	           time by turns, and many at once
//	token      from when the model sends a word to when those who wait for it have read it
//	budget     how often the model is called for 500 questions that nobody waits for,
//	           where a hundred calls are allowed
//	saturated  commit → invalidated while the model is slow, all places are taken and
//	           hundreds wait, beside the same without questions, by turns: where answers
//	           end one by one, and where all that are made end in the same millisecond
//
// It does not promise figures that hold on another machine. A figure that is missed is a
// result, not an error. Everything that Run starts has ended when it returns.
package ai
