// Package lane answers the plainest of requests on the connection itself, before
// net/http has read them: a GET or a POST that can be answered at once. What
// net/http does around a handler (a goroutine that waits for the client to hang up,
// contexts, two buffers, half a dozen deadlines) costs more than such an answer does.
//
// # What it does
//
// A listener of the lane gives net/http connections of its own. Between two requests,
// when net/http reads from one, the lane takes what has come. If that is exactly one
// whole request of a narrow form (see parse), the lane gives it to the server's own
// handler. If the handler answers, the answer is written, and the lane waits for what
// comes next. In all other cases the bytes go to net/http as they came (but for line ends
// in front of a request, see lead), which
// never knows that somebody has looked at them. So a request is answered by one of the
// two alone, and nothing but the choice between them is the lane's to get wrong.
//
// # What a handler must know
//
// In asks whether a request has come by the lane. Nobody notices there that the
// client hangs up, so a handler must not wait, but for a tenth of a second at most: where it
// would have to, it returns without having written
// anything, and is called again, by net/http. It must do nothing before that which must
// not be done twice. An answer must have its Content-Type if it has a body, and its
// Content-Length, or be flushed after each Write, as a stream is; it then goes out in
// chunks, as a whole. One that has not, or that names a Connection, a Transfer-Encoding or a
// Trailer, is not sent, and the request goes to net/http too. Neither request nor writer may be
// held on to, nor may the body, which is all there; and a string of the request that is kept
// keeps all of its head, so whoever keeps one for long copies it.
//
// # What it does not do
//
// It answers neither the first request on a connection, which net/http reads before
// anything is known of the client, nor one that came in pieces or behind another, such as
// a body that comes after its head; nor one that is larger than net/http's buffer, 4 KiB. It knows
// nothing of TLS: a server that speaks it has no lane.
//
// # Deadlines, and the end
//
// A connection in the lane may rest for as long as net/http let it, counted from the
// last answer, and a client has as long as Options.Write to take one.
// To net/http such a connection is idle, so Shutdown closes it at once. One on which an answer is under
// way is closed when that is out: Wait waits for those.
package lane
