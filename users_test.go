package reset_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/gopassreset/reset"
)

// An answerer gives one answer for every address, as a collation may.
type answerer struct {
	reset.Users
	user reset.User
	err  error
}

func (a answerer) FindByEmail(context.Context, string) (reset.User, error) { return a.user, a.err }

// The host is believed only if the user has the requested address. Mail goes to
// the address as it is stored.
func TestFindByEmail(t *testing.T) {
	long := strings.Repeat("7", 255)
	for _, tt := range []struct {
		name, requested string
		id, stored      string
		err             error
		event           string // logged for each look-up; "" if the user is reset
	}{
		{"stored in another case", "ANN@example.com", "1", "Ann@Example.COM", nil, ""},
		{"longest id", ann.Email, long, ann.Email, nil, ""},
		{"dotless i", "mıke@example.com", "1", "mike@example.com", nil, "user_mismatch"},
		{"long s", "mise@example.com", "1", "miſe@example.com", nil, "user_mismatch"},
		{"ligature", "finn@example.com", "1", "ﬁnn@example.com", nil, "user_mismatch"},
		{"accent", "rené@example.com", "1", "rene@example.com", nil, "user_mismatch"},
		{"no accent", "jurgen@example.com", "1", "jürgen@example.com", nil, "user_mismatch"},
		{"in quotes", ann.Email, "1", `"ann"@example.com`, nil, "user_mismatch"},
		{"domain within", ann.Email, "1", "ann@example.com.example.com", nil, "user_mismatch"},
		{"no address", ann.Email, "1", "ann", nil, "user_mismatch"},
		{"nobody", ann.Email, "", "", reset.ErrNoUser, "none"},
		{"several", ann.Email, "", "", reset.ErrManyUsers, "user_ambiguous"},
		{"no id", ann.Email, "", ann.Email, nil, "mail_failed"},
		{"id too long", ann.Email, long + "7", ann.Email, nil, "mail_failed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			user := reset.User{ID: tt.id, Email: tt.stored}
			inBubble(t, func(c *reset.Config) { c.Users = answerer{c.Users, user, tt.err} }, func(t *testing.T, f *fixture) {
				f.begin()
				activation, err := f.RequestReset(t.Context(), tt.requested, reset.RequestOptions{})
				f.forgot(tt.requested)
				pass(delivered)
				switch tt.event {
				case "":
					for _, m := range f.wantSent(2) {
						if m.To != tt.stored {
							t.Errorf("mail to %q, want %q", m.To, tt.stored)
						}
					}
					return
				case "none":
					f.wantEvents(map[string]int{})
				case "mail_failed":
					if err == nil {
						t.Error("RequestReset = nil, want a failure")
					}
					pass(2 * time.Hour)
				default:
					f.wantEvents(map[string]int{tt.event: 2})
				}
				f.wantSent(0)
				f.wantQueued(0)
				if activation != "" || err != nil && tt.event != "mail_failed" {
					t.Errorf("RequestReset = %q, %v", activation, err)
				}
				if strings.Contains(f.log.String(), tt.requested) {
					t.Errorf("the log has the address:\n%v", f.log)
				}
			})
		})
	}
}

// Mail that was queued for one user never goes to another who has the address
// by then.
func TestAddressChangedHands(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, f *fixture) {
		f.request(ann.Email)
		f.host.put(reset.User{ID: "9", Email: ann.Email})
		f.begin()
		pass(delivered)
		f.wantSent(0)
		f.wantQueued(0)
	})
}
