package main

import (
	"context"
	"fmt"

	"mythiccache/consumers"
)

// examineTemplates has PostgreSQL judge the queries of templates, as workers do when
// they start. What else may be wrong with the file was refused with the settings.
func (c *config) examineTemplates(ctx context.Context) []finding {
	n := len(c.templates.All())
	if n == 0 || c.DatabaseURL == "" {
		return nil
	}
	if err := c.checkTemplates(ctx); err != nil {
		return []finding{{
			bad: true, what: fmt.Sprintf("templates: %v", withoutURL(err)),
			mend: "nothing is asked ahead until PostgreSQL takes the queries: mend them in AI_WARM_FILE, or grant SELECT on what they read",
		}}
	}
	return []finding{{what: fmt.Sprintf("templates: PostgreSQL takes the queries of all %d", n)}}
}

func (c *config) checkTemplates(ctx context.Context) error {
	models, err := c.models()
	if err != nil {
		return err
	}
	pool, err := consumers.NewPool(ctx, c.DatabaseURL, 1)
	if err != nil {
		return err
	}
	defer pool.Close()
	loader, err := consumers.NewLoader(pool, consumers.LoaderOptions{})
	if err != nil {
		return err
	}
	templates, err := consumers.NewTemplates(nil, loader, consumers.TemplatesOptions{Templates: c.templates, Models: models})
	if err != nil {
		return err
	}
	return templates.Check(ctx)
}
