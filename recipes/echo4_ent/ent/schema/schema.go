// Package schema describes the host's tables to ent.
package schema

import (
	"entgo.io/ent"
	"entgo.io/ent/schema/field"
)

// A User is an account.
type User struct{ ent.Schema }

// Fields returns the columns.
func (User) Fields() []ent.Field {
	return []ent.Field{
		field.String("id").MaxLen(26),
		field.String("address").MaxLen(254).Unique(), // reset.CanonicalAddress(email)
		field.String("email").MaxLen(254),
		field.String("hash").MaxLen(100).Sensitive(),
	}
}

// A Session is one of a User.
type Session struct{ ent.Schema }

// Fields returns the columns.
func (Session) Fields() []ent.Field {
	return []ent.Field{
		field.String("id").MaxLen(26).Sensitive(),
		field.String("user_id").MaxLen(26),
	}
}
