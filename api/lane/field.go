package lane

// Each field that a request in the lane may have has a bit of its own.
const (
	host uint64 = 1 << iota
	connection
	contentLength
	contentType
	others // and those above it
)

// postFields are those that a GET in the lane has not.
const postFields = contentLength | contentType

// canonical returns the name of a field as net/http spells it, and its bit; 0 where
// the field is not for the lane. What is left out are fields that say how a request is
// framed or what becomes of the connection, those that net/http itself acts on, and
// those whose answers are worth waiting for. The last are those of OpenAI's clients.
func canonical(name string) (string, uint64) {
	var lower [32]byte
	if len(name) > len(lower) {
		return "", 0
	}
	for i := range len(name) {
		c := name[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		lower[i] = c
	}
	switch string(lower[:len(name)]) {
	case "host":
		return "Host", host
	case "connection":
		return "Connection", connection
	case "content-length":
		return "Content-Length", contentLength
	case "content-type":
		return "Content-Type", contentType
	case "accept":
		return "Accept", others << 0
	case "accept-encoding":
		return "Accept-Encoding", others << 1
	case "accept-language":
		return "Accept-Language", others << 2
	case "authorization":
		return "Authorization", others << 3
	case "cookie":
		return "Cookie", others << 4
	case "if-none-match":
		return "If-None-Match", others << 5
	case "referer":
		return "Referer", others << 6
	case "sec-fetch-dest":
		return "Sec-Fetch-Dest", others << 7
	case "sec-fetch-mode":
		return "Sec-Fetch-Mode", others << 8
	case "sec-fetch-site":
		return "Sec-Fetch-Site", others << 9
	case "traceparent":
		return "Traceparent", others << 10
	case "tracestate":
		return "Tracestate", others << 11
	case "user-agent":
		return "User-Agent", others << 12
	case "x-forwarded-for":
		return "X-Forwarded-For", others << 13
	case "x-forwarded-host":
		return "X-Forwarded-Host", others << 14
	case "x-forwarded-proto":
		return "X-Forwarded-Proto", others << 15
	case "x-real-ip":
		return "X-Real-Ip", others << 16
	case "x-request-id":
		return "X-Request-Id", others << 17
	case "x-user-id":
		return "X-User-Id", others << 18
	case "openai-organization":
		return "Openai-Organization", others << 19
	case "openai-project":
		return "Openai-Project", others << 20
	case "x-stainless-arch":
		return "X-Stainless-Arch", others << 21
	case "x-stainless-async":
		return "X-Stainless-Async", others << 22
	case "x-stainless-helper-method":
		return "X-Stainless-Helper-Method", others << 23
	case "x-stainless-lang":
		return "X-Stainless-Lang", others << 24
	case "x-stainless-os":
		return "X-Stainless-Os", others << 25
	case "x-stainless-package-version":
		return "X-Stainless-Package-Version", others << 26
	case "x-stainless-read-timeout":
		return "X-Stainless-Read-Timeout", others << 27
	case "x-stainless-retry-count":
		return "X-Stainless-Retry-Count", others << 28
	case "x-stainless-runtime":
		return "X-Stainless-Runtime", others << 29
	case "x-stainless-runtime-version":
		return "X-Stainless-Runtime-Version", others << 30
	case "x-stainless-timeout":
		return "X-Stainless-Timeout", others << 31
	default:
		return "", 0
	}
}
