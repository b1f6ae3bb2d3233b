package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"mythiccache/api"
	"mythiccache/cache"
	"mythiccache/cache/view"
	"mythiccache/consumers"
	"mythiccache/producers/event"
	"mythiccache/producers/stream"
)

// templateBatch is how many events one call of the templates' handler takes: each may
// read rows.
const templateBatch = 16

// How often it is looked for groups of topics that templates named once, and how long
// nobody may have read for one.
const (
	retireEvery = 10 * time.Minute
	retireAfter = time.Hour
)

// loadTemplates reads AI_WARM_FILE. Without one, Mythic's own views and the built-in
// model have the built-in templates: a real model is paid for, and asked ahead only
// what its operator wrote down.
func loadTemplates(c *config, environment map[string]string) (*view.Templates, error) {
	models, err := c.models()
	if err != nil {
		return nil, nil //nolint:nilerr // it is said of the models' own settings
	}
	if c.AIWarmFile == "" {
		if c.ViewsFile != "" || c.LLMBaseURL != "" {
			return nil, nil
		}
		templates, err := view.ParseTemplates("mythic_warm.yaml", view.MythicWarm(), c.views, nil)
		if err != nil || consumers.CheckTemplates(templates, models) != nil {
			return nil, err // its scope may not fit settings that were made without it in mind
		}
		return templates, nil
	}
	if answersView(c.views) == nil {
		return nil, errors.New("AI_WARM_FILE: no view is answered by a model (load: model), so nothing can be asked ahead")
	}
	text, err := os.ReadFile(c.AIWarmFile)
	if err != nil {
		return nil, fmt.Errorf("AI_WARM_FILE: %w", err)
	}
	templates, err := view.ParseTemplates(c.AIWarmFile, text, c.views, variables(environment))
	if err != nil {
		return nil, fmt.Errorf("AI_WARM_FILE: %w", err)
	}
	if err := consumers.CheckTemplates(templates, models); err != nil {
		return nil, fmt.Errorf("AI_WARM_FILE: %w", err)
	}
	return templates, nil
}

// variables looks up what a file calls ${NAME}. An empty one is not there.
func variables(environment map[string]string) func(name string) (string, bool) {
	return func(name string) (string, bool) {
		value, ok := environment[name]
		return value, ok && value != ""
	}
}

// addTemplates adds what asks ahead, where there are templates. It begins once
// PostgreSQL has judged their queries. While it refuses one, what would begin that template
// is passed over: streams that stood still would not be trimmed, and asking ahead is worth no
// full Redis. Nor is the process unready for that; log, metric, /readyz and doctor say it.
func (w *worker) addTemplates(
	schema *schemaGate, loader *consumers.Loader, store *cache.Store, o consumers.TemplatesOptions,
) (*consumers.TemplateCounts, error) {
	w.consumers.add("retired groups", schema.after(w.retireTemplates))
	if len(w.templates.All()) == 0 {
		return nil, nil
	}
	counts, err := consumers.NewTemplateCounts(w.templates.Names(), w.metrics)
	if err != nil {
		return nil, err
	}
	publisher, err := stream.NewPublisher(w.redis.dial, w.keys, stream.PublisherOptions{Log: w.log, Metrics: w.metrics})
	if err != nil {
		return nil, fmt.Errorf("templates: %w", err)
	}
	w.closers = append(w.closers, publisher.Close)
	o.Templates, o.Publisher, o.Counts, o.Log = w.templates, publisher, counts, w.log
	templates, err := consumers.NewTemplates(store, loader, o)
	if err != nil {
		return nil, fmt.Errorf("templates: %w", err)
	}
	consumer, err := stream.NewConsumer(w.redis.dial, w.keys, templates.Handle, stream.ConsumerOptions{
		Group: groupWarm, Topics: w.templates.Topics(), Name: w.instance, BatchSize: templateBatch, Timeout: batchFor, Log: w.log, Metrics: w.metrics,
	})
	if err != nil {
		return nil, fmt.Errorf("group %s: %w", groupWarm, err)
	}
	w.parts.watch("templates", consumer.Ready)
	judged := make(chan struct{})
	var said part
	w.parts.watch("templates' queries", func() error {
		if err := said.Ready(); err != nil {
			return fmt.Errorf("%w: %w", api.ErrImpaired, err)
		}
		return nil
	})
	w.consumers.add("templates' queries", schema.after(func(ctx context.Context) error {
		w.judgeTemplates(ctx, templates, &said, judged)
		return nil
	}))
	w.consumers.add("templates", func(ctx context.Context) error {
		select {
		case <-judged:
			return consumer.Run(ctx)
		case <-ctx.Done():
			return nil
		}
	})
	return counts, nil
}

// judgeTemplates has PostgreSQL judge the queries until they are right, and again when one
// turns wrong, and says what is wrong with them: a table that they read may be still to
// come, or was altered. It closes judged once PostgreSQL has said anything.
func (w *worker) judgeTemplates(ctx context.Context, templates *consumers.Templates, said *part, judged chan<- struct{}) {
	for first := true; ; {
		err := templates.Check(ctx)
		if ctx.Err() != nil {
			return
		}
		var wrong *consumers.TemplateError
		known := err == nil || errors.As(err, &wrong)
		switch changed := said.report(err); {
		case changed && err != nil:
			w.log.Error().Err(err).Msg("templates cannot be used; they ask nothing ahead")
		case changed && !first:
			w.log.Info().Msg("templates can be used")
		}
		if known && first {
			close(judged)
			first = false
		}
		var again <-chan time.Time
		if err != nil {
			again = time.After(lookEvery)
		}
		select {
		case <-ctx.Done():
			return
		case <-templates.Refused():
		case <-again:
		}
	}
}

// retireTemplates ends the reading of topics for templates that are no more, which would
// keep those topics from being trimmed.
func (w *worker) retireTemplates(ctx context.Context) error {
	topics := slices.Concat(w.views.TableTopics(), w.views.EventTopics(), []string{event.TopicRun})
	topics = slices.DeleteFunc(sortedSet(topics), func(topic string) bool { return slices.Contains(w.templates.Topics(), topic) })
	tick := time.NewTicker(retireEvery)
	defer tick.Stop()
	for {
		retired, err := stream.Retire(ctx, w.store.Client(), w.keys, groupWarm, topics, retireAfter)
		if len(retired) > 0 {
			w.log.Info().Strs("topics", retired).Str("group", groupWarm).Msg("group retired: no template names the topics any more")
		}
		if err != nil && ctx.Err() == nil {
			w.log.Debug().Err(err).Msg("no group retired")
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
