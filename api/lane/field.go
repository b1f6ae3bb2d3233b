package lane

// Each field that a request in the lane may have has a bit of its own.
const (
	host uint32 = 1 << iota
	connection
	others // and those above it
)

// canonical returns the name of a field as net/http spells it, and its bit; 0 where
// the field is not for the lane. What is left out are fields that say how a request is
// framed or what becomes of the connection, those that net/http itself acts on, and
// those whose answers are worth waiting for.
func canonical(name string) (string, uint32) {
	var lower [20]byte
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
	default:
		return "", 0
	}
}
