package storesqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// A file is the SQLite file of a Store and the two that SQLite keeps beside it.
// SQLite goes on with those that it has open when they are moved, deleted or
// replaced: what is written then is gone with the process, or is where nobody
// looks for it.
type file struct {
	path  string // absolute
	parts []part
}

// A part is one of the three files.
type part struct {
	path string
	was  os.FileInfo // of what SQLite has open
}

// newFile notes which file is at a path. note must follow, once SQLite has
// opened it.
func newFile(path string) (*file, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	return &file{path, []part{{path, info}}}, nil
}

// note adds the files beside the first one. A connection that is kept has all of
// them open, so SQLite does not delete them.
func (f *file) note() error {
	resolved, err := filepath.EvalSymlinks(f.path) // as SQLite does before it names the others
	if err != nil {
		return err
	}
	for _, suffix := range []string{"-wal", "-shm"} {
		info, err := os.Stat(resolved + suffix)
		if err != nil {
			return err
		}
		f.parts = append(f.parts, part{resolved + suffix, info})
	}
	return f.check()
}

// check returns a *movedError if one of the files is no longer where it was
// opened.
func (f *file) check() error {
	for _, p := range f.parts {
		info, err := os.Stat(p.path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return &movedError{path: p.path, gone: true}
		case err != nil:
			return fmt.Errorf("storesqlite: %w", err)
		case !os.SameFile(p.was, info):
			return &movedError{path: p.path}
		}
	}
	return nil
}

// A movedError means that what is written now would be lost.
type movedError struct {
	path string
	gone bool // nothing is there now
}

func (e *movedError) Error() string {
	what := "was replaced by another file"
	if e.gone {
		what = "was moved or deleted"
	}
	return fmt.Sprintf("storesqlite: %s %s while it was open: put it back, or restart every process that uses it", e.path, what)
}

// A connector opens connections to the file that a Store has open, and to no
// other one that has taken its place.
type connector struct {
	driver driver.Driver
	dsn    string
	file   *file
}

// Connect implements driver.Connector.
func (c *connector) Connect(context.Context) (driver.Conn, error) {
	if err := c.file.check(); err != nil {
		return nil, err
	}
	conn, err := c.driver.Open(c.dsn)
	if err == nil {
		if err = c.file.check(); err != nil {
			_ = conn.Close()
		}
	}
	if err != nil {
		return nil, err
	}
	return conn, nil
}

// Driver implements driver.Connector.
func (c *connector) Driver() driver.Driver { return c.driver }
