package reset_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/gopassreset/reset"
)

// The text of an error names the operation behind one prefix, however deep the
// error comes from.
func TestErrorTexts(t *testing.T) {
	for _, tt := range []struct {
		plant func(*fixture)
		want  string // of RequestReset and ChangePassword
	}{
		{func(f *fixture) { f.store.Fail(errors.New("disk full"), "Issue") }, "reset: issue: disk full"},
		{func(f *fixture) { f.store.Fail(&reset.LimitError{RetryAfter: 1e9}, "Issue") }, "reset: issue: too many requests: retry after 1s"},
		{func(f *fixture) { f.store.Fail(reset.ErrInvalidActivation, "Find") }, "reset: find: invalid activation"},
		{func(f *fixture) { f.store.Fail(reset.ErrInvalidActivation, "Redeem") }, "reset: redeem: invalid activation"},
		{func(f *fixture) {
			f.host.onHash = func(context.Context, string) error { return errors.New("no memory") }
		}, "reset: hash password: no memory"},
		{func(f *fixture) { f.host.onSet = func(context.Context, string) error { return reset.ErrNotChanged } }, "reset: redeem: password not changed"},
		{func(f *fixture) { f.host.onFind = func(context.Context, string) error { return errors.New("refused") } }, "reset: find user: refused"},
		{func(f *fixture) {
			f.host.onFind = func(context.Context, string) error { return errors.New("reset: by peer") }
		}, "reset: find user: by peer"},
	} {
		f := newFixture(t, newHost(ann), nil)
		activation := f.activation(ann)
		tt.plant(f)
		_, err := f.RequestReset(t.Context(), ann.Email, reset.RequestOptions{})
		if err == nil {
			err = f.ChangePassword(t.Context(), activation, goodPassword)
		}
		if err == nil || err.Error() != tt.want {
			t.Errorf("got %v, want %s", err, tt.want)
		}
	}
	var err error = &reset.LimitError{}
	if !errors.Is(err, reset.ErrTooManyRequests) || errors.Is(err, reset.ErrBadRequest) || !errors.Is(reset.ErrManyUsers, reset.ErrNoUser) {
		t.Error("an error does not match the one that it is documented to match")
	}
	if strings.Count(reset.ErrManyUsers.Error(), "reset: ") != 1 {
		t.Errorf("ErrManyUsers has the text %q", reset.ErrManyUsers)
	}
}
