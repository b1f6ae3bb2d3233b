package migrations

import (
	"embed"
	"io/fs"
)

//go:embed *.sql
var files embed.FS

//go:embed demo/tables.sql
var demoTables string

//go:embed demo/rows.sql
var demoRows string

// FS returns goose's files, which want schema mythic_cache to exist.
func FS() fs.FS { return files }

// DemoTables returns the SQL that makes Mythic's own tables where they are
// missing, in the first schema of the search path.
func DemoTables() string { return demoTables }

// DemoRows returns the SQL that fills them: users user_1 to user_300, 900 books,
// runs RUN1 to RUN400.
func DemoRows() string { return demoRows }
