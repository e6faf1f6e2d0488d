package reset_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gopassreset/reset"
	"github.com/gopassreset/reset/internal/figure"
	"github.com/gopassreset/reset/resettest"
)

// Two brands share a store: neither mails for the other, nor does a link of one
// set a password of the other, nor do they share a cap.
func TestRealms(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := new(resettest.MemStore)
		var brands []*fixture
		for _, realm := range []string{"", "red", "blue"} {
			f := newFixture(t, newHost(ann), func(c *reset.Config) {
				c.Store, c.Realm, c.BaseURL = store, realm, "https://app.example.com/"+realm
			})
			f.begin()
			brands = append(brands, f)
		}
		links := make([]string, len(brands))
		for i, f := range brands {
			for range 3 {
				f.request(ann.Email)
			}
			f.forgot(ann.Email)
			pass(delivered)
			sent := f.wantSent(4)
			links[i] = activationOf(t, sent[i])
		}
		crossed, tried := 0, 0
		for i, f := range brands {
			for j, activation := range links {
				if i != j {
					tried++
				}
				err := f.ChangePassword(t.Context(), activation, goodPassword)
				switch {
				case j < i: // the other has used it
				case i == j && err != nil:
					t.Errorf("ChangePassword: %v", err)
				case i != j && !errors.Is(err, reset.ErrInvalidActivation):
					t.Errorf("ChangePassword with a link of another realm: got %v, want ErrInvalidActivation", err)
					crossed++
				}
			}
			pass(delivered)
			f.wantSent(5) // its own notification
			f.wantEvents(map[string]int{"mail_sent": 5, "password_changed": 1, "activation_refused": len(brands) - 1})
		}
		figure.Report(t, "links that work in another realm", crossed, tried)
	})
}

// Services that share a realm by mistake are told so.
func TestBaseURLConflict(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := new(resettest.MemStore)
		start := func(realm, baseURL string) *fixture {
			f := newFixture(t, newHost(ann), func(c *reset.Config) { c.Store, c.Realm, c.BaseURL = store, realm, baseURL })
			f.begin()()
			pass(time.Second)
			return f
		}
		const red, blue = "https://red.example.com", "https://blue.example.com"
		for _, tt := range []struct {
			realm, baseURL string
			conflicts      int
		}{
			{"", red, 0},
			{"", red, 0},
			{"blue", blue, 0},
			{"", blue, 1},
			{"", blue, 0}, // it has moved
			{"", red, 1},
			{"blue", blue, 0},
		} {
			start(tt.realm, tt.baseURL).wantEvent("base_url_conflict", tt.conflicts)
		}
	})
}
