package consumers

import (
	"errors"
	"strings"

	"github.com/redis/go-redis/v9"
)

// unwell reports whether an error of the store is about Redis itself, as opposed
// to the key that it was asked about.
func unwell(err error) bool {
	if err == nil {
		return false
	}
	var answer redis.Error
	return !errors.As(err, &answer) || redisUnwell(answer.Error())
}

// redisUnwell reports whether an answer of Redis speaks of its own state.
func redisUnwell(answer string) bool {
	// A script's error has the same code, behind what the script was doing.
	for _, code := range []string{
		"LOADING", "OOM", "READONLY", "MASTERDOWN", "BUSY ", "MISCONF", "NOREPLICAS", "CLUSTERDOWN", "TRYAGAIN",
		"UNBLOCKED", "NOAUTH", "NOPERM", "NOSCRIPT", "max number of clients",
	} {
		if strings.Contains(answer, code) {
			return true
		}
	}
	return false
}
