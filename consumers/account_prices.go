package consumers

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"mythiccache/cache"
)

// Prices are what models cost for a million tokens, in whatever currency they were
// written in.
type Prices struct{ models map[string]price }

type price struct{ in, out float64 }

// ParsePrices reads AI_PRICES: gpt-4o-mini=0.15/0.60;gpt-4o=2.50/10, where the first
// number is for a million tokens of a prompt and the second for as many of an answer. A
// price is also that of a model's dated releases, as gpt-4o-2024-08-06.
func ParsePrices(text string) (Prices, error) {
	p := Prices{models: map[string]price{}}
	for item := range strings.SplitSeq(text, ";") {
		item = strings.TrimSpace(item)
		if item == "" {
			continue
		}
		model, both, ok := strings.Cut(item, "=")
		in, out, ok2 := strings.Cut(both, "/")
		model = strings.TrimSpace(model)
		if !ok || !ok2 || model == "" {
			return Prices{}, fmt.Errorf("%q is not of the form model=in/out", item)
		}
		if _, twice := p.models[model]; twice {
			return Prices{}, fmt.Errorf("%s has two prices", model)
		}
		var one price
		var err error
		if one.in, err = parsePrice(in); err == nil {
			one.out, err = parsePrice(out)
		}
		if err != nil {
			return Prices{}, fmt.Errorf("%q %w", item, err)
		}
		p.models[model] = one
	}
	return p, nil
}

func parsePrice(text string) (float64, error) {
	n, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
	if err != nil || !(n >= 0 && n <= 1e6) { // so that what is no number is found, too
		return 0, fmt.Errorf("has %q, which is no price of a million tokens", text)
	}
	return n, nil
}

func (p Prices) names() []string { return slices.Collect(maps.Keys(p.models)) }

// find returns the name under which a model has a price: its own, or the longest of
// which it is a release.
func (p Prices) find(model string) (name string, ok bool) {
	if _, ok := p.models[model]; ok {
		return model, true
	}
	for one := range p.models {
		if len(one) > len(name) && isRelease(model, one) {
			name = one
		}
	}
	return name, name != ""
}

// isRelease reports whether a model is a dated release of another: gpt-4o-mini is none
// of gpt-4o.
func isRelease(model, of string) bool {
	rest, ok := strings.CutPrefix(model, of+"-")
	return ok && rest != "" && rest[0] >= '0' && rest[0] <= '9'
}

// of returns what an answer cost.
func (p Prices) of(model string, usage cache.Usage) float64 {
	name, ok := p.find(model)
	if !ok {
		return 0
	}
	one := p.models[name]
	return (one.in*float64(max(usage.PromptTokens, 0)) + one.out*float64(max(usage.CompletionTokens, 0))) / 1e6
}
