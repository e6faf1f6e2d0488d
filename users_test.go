package reset_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/gopassreset/reset"
)

func TestDeliveryTo(t *testing.T) {
	for _, tt := range []struct {
		name, asked string
		answer      reset.User // of FindByEmail, whatever it is asked
		to          string     // "" for no mail
	}{
		{"stored address", "ANN@example.com", reset.User{ID: "1", Email: "Ann@Example.COM"}, "Ann@Example.COM"},
		{"dotless i", "mıke@example.com", reset.User{ID: "1", Email: "mike@example.com"}, ""},
		{"accent-insensitive", "jurgen@example.com", reset.User{ID: "1", Email: "jürgen@example.com"}, ""},
		{"padded", "ann@example.com", reset.User{ID: "1", Email: "ann@example.com "}, ""},
		{"another", "ann@example.com", bob, ""},
		{"no id", "ann@example.com", reset.User{Email: "ann@example.com"}, ""},
		{"nobody", "nobody@example.com", reset.User{}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(c *reset.Config) { c.Users = answerer{c.Users, tt.answer} }, func(t *testing.T, r round) {
				r.forgot(t, tt.asked)
				run(t, r.Service)
				pass(2 * time.Hour)
				var to []string
				for _, m := range r.post.messages() {
					to = append(to, m.To)
				}
				if got := strings.Join(to, " "); got != tt.to {
					t.Errorf("mail to %q; want %q", got, tt.to)
				}
				drained(t, r.store)
				if tt.to == "" && strings.Contains(r.events.String(), tt.asked) {
					t.Errorf("the log names an address without account:\n%v", r.events)
				}
			})
		})
	}
}

// An answerer knows one user by every address.
type answerer struct {
	reset.Users
	user reset.User
}

func (a answerer) FindByEmail(context.Context, string) (reset.User, error) {
	if a.user == (reset.User{}) {
		return reset.User{}, reset.ErrNoUser
	}
	return a.user, nil
}

// Where two accounts have the address nobody gets a mail, and the operator is
// told.
func TestManyUsers(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, r round) {
		r.host.onFind = func(context.Context, string) error { return reset.ErrManyUsers }
		r.begin(t)
		r.forgot(t, ann.Email)
		if id, err := r.RequestReset(t.Context(), ann.Email, reset.RequestOptions{}); id != "" || err != nil {
			t.Errorf("RequestReset returned %q, %v", id, err)
		}
		pass(delivered)
		r.wantSent(t, 0)
		r.wantEvents(t, map[string]int{"user_ambiguous": 2})
		drained(t, r.store)
	})
}

// What a database may take for the same address is another one.
func TestLookAlikes(t *testing.T) {
	tests := []struct{ asked, stored string }{
		{"mıke@example.com", "mike@example.com"}, // dotless i
		{"mise@example.com", "miſe@example.com"}, // long s
		{"finn@example.com", "ﬁnn@example.com"},  // ligature
		{"rené@example.com", "rene@example.com"},
		{"mike@example.com", "not an address"},
	}
	for _, tt := range tests {
		t.Run(tt.asked, func(t *testing.T) {
			user := reset.User{ID: "1", Email: tt.stored}
			inBubble(t, func(c *reset.Config) { c.Users = answerer{c.Users, user} }, func(t *testing.T, r round) {
				r.begin(t)
				r.forgot(t, tt.asked)
				pass(delivered)
				r.wantSent(t, 0)
				r.wantEvents(t, map[string]int{"user_mismatch": 1})
				drained(t, r.store)
			})
		})
	}
}

// A mail that was queued for one user never goes to another who has the
// address by then.
func TestAddressChangedHands(t *testing.T) {
	inBubble(t, nil, func(t *testing.T, r round) {
		r.request(t, ann.Email)
		r.host.put(reset.User{ID: "9", Email: ann.Email})
		r.begin(t)
		pass(delivered)
		r.wantSent(t, 0)
		drained(t, r.store)
	})
}

// otherUsers finds the same user for every address, as a collation might.
type otherUsers struct {
	*host
	user reset.User
}

func (u otherUsers) FindByEmail(context.Context, string) (reset.User, error) { return u.user, nil }

func TestContractOtherAddress(t *testing.T) {
	h := newHost(ann)
	f := newTrusted(t, h, func(c *reset.Config) { c.Users = otherUsers{h, ann} })
	for _, address := range []string{"änn@example.com", "anna@example.com", "ann@example.com.example.com"} {
		wantAnswer(t, f.post(resetPath, fmt.Sprintf(`{"email":%q}`, address)), 200, okBody)
	}
	if writes(f.store) != 0 {
		t.Errorf("another address moved something: %s", f.moved())
	}
	if got := f.logged("user_mismatch"); got != 3 {
		t.Errorf("%d events user_mismatch, want 3", got)
	}
}
