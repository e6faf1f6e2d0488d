// Package ent is the code that ent makes of the schema: run go generate with
// GOWORK=off GOFLAGS=-mod=mod, and go mod tidy after that. .ci/generated compares.
package ent

//go:generate go run entgo.io/ent/cmd/ent@v0.14.5 generate ./schema
