package api

import (
	"testing"

	"mythiccache/cache"
)

func demoModels(t testing.TB) cache.Models { return models(t, "demo", "", "") }

func models(t testing.TB, fallback, list, shared string) cache.Models {
	t.Helper()
	m, err := cache.ParseModels(fallback, list, shared)
	if err != nil {
		t.Fatal(err)
	}
	return m
}
