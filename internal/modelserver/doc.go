// Package modelserver is a language model for tests: an HTTP server on loopback
// that speaks OpenAI's chat completions, as well and as badly as a test wants.
//
// It promises that every call is counted and kept, that a reply is the same for
// the same request unless a test says otherwise, and that a call which is held
// notices when its client hangs up.
//
// It does not ship. New stops the server after the test; Start leaves that to
// whoever calls Close, which ends held calls first.
package modelserver
