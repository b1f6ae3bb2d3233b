package ai

import (
	"context"
	"fmt"

	"mythiccache/internal/bench/gauge"
	"mythiccache/internal/modelserver"
	"mythiccache/producers/event"
	"mythiccache/producers/stream"
)

// questions are how many are asked of the model that has a budget.
const questions = 500

// budget has more asked ahead than a model's budget allows, and counts the calls.
func budget(ctx context.Context, b *bed) ([]gauge.Line, error) {
	b.model.Respond(func(modelserver.Call) modelserver.Reply { return modelserver.Reply{} })
	err := b.exec(ctx, `SELECT mythic_cache.publish('ai.requested', 'bench', jsonb_build_object('warm', true, 'request',
		jsonb_build_object('model', $1::text, 'messages', jsonb_build_array(jsonb_build_object('role', 'user', 'content', 'chapter ' || n)))))
		FROM generate_series(1, $2) AS n`, frugal, questions)
	if err != nil {
		return nil, err
	}
	if err := await(ctx, "all questions are answered or dropped", func() error { return b.quiet(ctx, questions) }); err != nil {
		return nil, err
	}
	calls := 0
	for _, call := range b.model.Calls() {
		if call.Model == frugal {
			calls++
		}
	}
	return []gauge.Line{{
		Figure: fmt.Sprintf("calls for %d questions asked ahead, of which %d are allowed", questions, allowed),
		Reach:  fmt.Sprint(allowed), Measured: fmt.Sprint(calls), Reached: calls == allowed,
	}}, nil
}

// quiet returns an error while questions are worked on, or until so many were asked.
func (b *bed) quiet(ctx context.Context, asked int64) error {
	keys, group := stream.NewKeys(prefix), "warm"
	groups, err := b.client.XInfoGroups(ctx, keys.Topic(event.TopicAI)).Result()
	if err != nil {
		return err
	}
	parked, err := b.client.ZCard(ctx, keys.Parked(group, event.TopicAI)).Result()
	if err != nil {
		return err
	}
	for _, g := range groups {
		if g.Name == group && g.EntriesRead >= asked && g.Lag == 0 && g.Pending == 0 && parked == 0 {
			return nil
		}
	}
	return fmt.Errorf("%d are parked, the groups are %+v", parked, groups)
}
