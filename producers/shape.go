package producers

import (
	_ "embed"
	"fmt"

	"github.com/jackc/pgx/v5"

	"mythiccache/cache/view"
)

//go:embed shape.sql
var shapeSQL string

// shape is what the catalogs say of all that a view rests on. Two looks that gave
// the same shape found the same, and nothing else between them.
type shape struct {
	tables  string // a digest
	objects string // the rules and functions that the view reads through, "oid xmin" of each
}

// String is how a shape is kept in Redis.
func (s shape) String() string { return s.tables + " " + s.objects }

// shapeArgs are $1 to $4 of the shape statement. What views read through, an
// examination finds out.
func shapeArgs(views *view.Set, objects map[string][]object) []any {
	mapping, mapped, reading, read := []string{}, []string{}, []string{}, []string{}
	for _, v := range views.All() {
		for _, m := range v.Tables {
			mapping, mapped = append(mapping, v.Name), append(mapped, m.Table)
		}
		for _, m := range v.Owners {
			mapping, mapped = append(mapping, v.Name), append(mapped, m.Table)
		}
		for _, o := range objects[v.Name] {
			reading, read = append(reading, v.Name), append(read, fmt.Sprint(o.oid))
		}
	}
	return []any{mapping, mapped, reading, read}
}

// scanShapes reads what the shape statement returns, by view.
func scanShapes(rows pgx.Rows, err error) (map[string]shape, error) {
	if err != nil {
		return nil, fmt.Errorf("read the shapes of views: %w", err)
	}
	shapes := map[string]shape{}
	var name string
	var s shape
	if _, err := pgx.ForEachRow(rows, []any{&name, &s.tables, &s.objects}, func() error { shapes[name] = s; return nil }); err != nil {
		return nil, fmt.Errorf("read the shapes of views: %w", err)
	}
	return shapes, nil
}
