// Package migrations has the tables of package storebun as files for migration
// tools: goose, golang-migrate and Atlas. Copy the files of your tool and your
// database among your own, under your own numbers, or read them from [FS].
//
// They do what storebun.CreateSchema does. A host that uses them need not call
// it.
package migrations

import "embed"

// FS holds the files, as goose/mysql, goose/postgres, goose/sqlite, and the same
// in migrate and atlas.
//
//go:embed goose migrate atlas
var FS embed.FS
