package gauge

import (
	"cmp"
	"slices"
)

// Median returns the middle one, the upper of two.
func Median[T cmp.Ordered](all []T) T { return Quantile(all, .5) }

// Quantile returns the sample below which a share q of all lie. It panics where
// there are none.
func Quantile[T cmp.Ordered](all []T, q float64) T {
	sorted := slices.Sorted(slices.Values(all))
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}
