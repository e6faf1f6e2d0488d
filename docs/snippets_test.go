package docs_test

import (
	"context"
	"database/sql"
	"net/netip"
	"os"

	"github.com/uptrace/bun"
	"github.com/uptrace/bun/schema"

	"github.com/gopassreset/reset"
	storebun "github.com/gopassreset/reset/store_bun"
)

// Snippets of the pages that stand nowhere else. They compile here.

var _ = reset.Config{
	ClientIP: reset.ClientIPBehind(netip.MustParsePrefix("10.0.0.0/8")),
}

var cloudflare []netip.Prefix

var _ = reset.Config{
	ClientIP: reset.ClientIPFromHeader("CF-Connecting-IP", cloudflare...),
}

var _ reset.Mailer = &reset.SMTPMailer{
	Addr:     "smtp.example.com:587",
	From:     "Example <no-reply@example.com>",
	Username: "no-reply@example.com",
	Password: os.Getenv("SMTP_PASSWORD"),
}

var _ = reset.SMTPMailer{
	Header: map[string]string{"X-Mailgun-Track-Clicks": "no"},
}

var mailToken func(context.Context) (string, error)

var _ reset.Mailer = &reset.SMTPMailer{
	Addr:     "smtp.office365.com:587",
	From:     "Example <no-reply@example.com>",
	Username: "no-reply@example.com",
	Token:    mailToken,
}

var _ = reset.Config{
	Templates: os.DirFS("overrides"), // has templates/layout.html and locales/de.json, for example
}

var _ = reset.Config{
	BaseURL:        "https://api.example.com/account",
	AllowedOrigins: []string{"https://app.example.com"},
	ResetURL:       "https://app.example.com/new-password",
	RevokeURL:      "https://app.example.com/not-me",
}

var _ = reset.Config{
	MaxPasswordBytes: 72, // what bcrypt takes
}

func storePool(ctx context.Context, dsn string, dialect schema.Dialect) (*storebun.Store, error) {
	storeDB, err := sql.Open("pgx", dsn) // beside the pool of your pages
	if err != nil {
		return nil, err
	}
	storeDB.SetMaxOpenConns(8)
	storeDB.SetMaxIdleConns(8)
	return storebun.New(ctx, bun.NewDB(storeDB, dialect))
}

var _ = storePool
