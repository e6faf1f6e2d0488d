package browsertest

import (
	"sync"
	"sync/atomic"
	"testing"

	"github.com/chromedp/chromedp"
)

// From the form to the new password, by a click in webmail.
func TestJourney(t *testing.T) {
	for _, test := range []struct {
		name    string
		scripts bool
	}{{"with JavaScript", true}, {"without JavaScript", false}} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			const email = "robin@example.com"
			h.users.add(email, "")
			h.users.signIn(email)
			b := newTab(t, h)
			if !test.scripts {
				b.withoutScripts()
			}

			b.open(h.base + "/forgot")
			b.write("#email", email)
			b.submit()
			b.wantPage(pageSent)

			m := h.mail(t, email)
			b.open(h.publish(m.HTML))
			b.click(`a[href*="/reset?"]`)
			b.wantPage(pageChoose)
			if got := b.location(); got != h.base+"/reset" {
				t.Errorf("the form is at %s", got)
			}
			if got := value(b, chromedp.Value(chromedp.CSS("#username"))); got != email {
				t.Errorf("the form is for %q", got)
			}
			if got := evaluate[bool](b, `document.querySelector(".show").hidden`); got == test.scripts {
				t.Errorf("the switch that shows passwords is hidden: %v", got)
			}

			b.choose("short")
			b.wantPage(pageChoose)
			b.fill(newPassword, newPassword+"!")
			b.submit()
			b.wantPage(pageChoose)
			h.wantPassword(t, email, oldPassword)
			b.choose(newPassword)
			b.wantPage(pageDone)
			h.wantPassword(t, email, newPassword)
			if got := h.users.get(email).sessions; got != 0 {
				t.Errorf("%d sessions are left", got)
			}
			if c := b.cookie(); c == nil || c.Value != "dead" {
				t.Errorf("the cookie is %v", c)
			}
			if got := h.mail(t, email); got.Kind != "notification" {
				t.Errorf("then mail of kind %q was sent", got.Kind)
			}

			b.click("a.button")
			b.wantPage("Sign in")
			b.write("#email", email)
			b.write("#password", newPassword)
			b.click("button")
			b.wantPage("Hello " + email)
		})
	}
}

// The back button leads to no form that still has the password in it, although
// browsers may keep the page as it was left.
func TestBackButton(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.users.add(alice, "")
	b := newTab(t, h)
	b.open(h.link(t, alice))
	b.choose(newPassword)
	b.wantPage(pageDone)
	b.do(chromedp.NavigateBack())
	b.wantPage(pageInvalid)
}

// The switch shows what is typed, and the form hides it again before it sends.
func TestShowPasswords(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	const email = "robin@example.com"
	h.users.add(email, "")
	b := newTab(t, h)
	b.open(h.link(t, email))
	b.fill(newPassword, newPassword)
	types := func() string {
		return evaluate[string](b, `[...document.querySelectorAll("#password, #confirm")].map(f => f.type).join()`)
	}
	for _, want := range []string{"text,text", "password,password", "text,text"} {
		b.do(chromedp.Click(chromedp.CSS("#show")))
		if got := types(); got != want {
			t.Errorf("the fields are of the types %s, want %s", got, want)
		}
	}
	evaluate[chromedp.Void](b, `document.querySelector("form").addEventListener("submit", (e) => e.preventDefault())`)
	b.do(chromedp.Click(chromedp.CSS("button")))
	if got := types(); got != "password,password" {
		t.Errorf("sent with fields of the types %s", got)
	}
}

// "It wasn't me": a click in the mail ends what the link was for.
func TestRevoke(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	const email = "robin@example.com"
	h.users.add(email, "")
	b := newTab(t, h)
	b.open(h.base + "/forgot")
	b.write("#email", email)
	b.submit()
	m := h.mail(t, email)
	b.open(h.publish(m.HTML))
	b.click(`a[href*="/revoke?"]`)
	b.wantPage(pageRevoke)
	b.submit()
	b.wantPage(pageRevoked)
	b.open(m.Link)
	b.wantPage(pageInvalid)
	h.wantPassword(t, email, oldPassword)
}

// Without JavaScript nothing keeps a form from being sent twice. However far
// the first one has come, the password is changed once, and the page makes
// sense to whoever has just changed it.
func TestSecondClick(t *testing.T) {
	for _, test := range []struct {
		name  string
		page  string
		first func(h *host, held func()) // holds the first form
	}{
		{"before the first has changed anything", pageDone, func(h *host, held func()) {
			var hashed atomic.Int32
			h.users.hashing = func() {
				if hashed.Add(1) == 1 {
					held()
				}
			}
		}},
		{"before the first is answered", pageInvalid, func(h *host, held func()) {
			h.served = func(post int32) {
				if post == 1 {
					held()
				}
			}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			h.users.add(alice, "")
			arrived, release := make(chan struct{}), make(chan struct{})
			test.first(h, func() {
				close(arrived)
				<-release
			})
			free := sync.OnceFunc(func() { close(release) })
			t.Cleanup(free)

			b := newTab(t, h)
			b.withoutScripts()
			b.open(h.link(t, alice))
			b.fill(newPassword, newPassword)
			// Clicks by their place: the protocol holds back what asks the page
			// while a navigation is pending.
			at := evaluate[[]float64](b, `(() => { const r = document.querySelector("button").getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; })()`)
			b.do(chromedp.MouseClickXY(at[0], at[1]))
			select {
			case <-arrived:
			case <-b.ctx.Done():
				t.Fatal("the form does not arrive")
			}
			b.do(chromedp.MouseClickXY(at[0], at[1]))
			b.do(chromedp.WaitReady(chromedp.CSS("main a.button")))
			b.wantPage(test.page)
			free()
			if got := h.posts.Load(); got != 2 {
				t.Errorf("the form was sent %d times", got)
			}
			if got := h.users.get(alice).changes; got != 1 {
				t.Errorf("the password was changed %d times", got)
			}
			h.wantPassword(t, alice, newPassword)
		})
	}
}

// Two clicks change the password once and end on the page that says so.
func TestDoubleSubmit(t *testing.T) {
	for _, test := range []struct {
		name    string
		scripts bool
	}{{"with JavaScript", true}, {"without JavaScript", false}} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			h.users.add(alice, "")
			b := newTab(t, h)
			if !test.scripts {
				b.withoutScripts()
			}
			b.open(h.link(t, alice))
			b.fill(newPassword, newPassword)
			// In one task: the protocol holds a second command back while the
			// first one's navigation is pending.
			b.follow(chromedp.Evaluate[chromedp.Void](`(() => { const b = document.querySelector("button"); b.click(); b.click(); })()`))
			b.wantPage(pageDone)
			if got := h.posts.Load(); got != 1 {
				t.Errorf("the form was sent %d times", got)
			}
			if got := h.users.get(alice).changes; got != 1 {
				t.Errorf("the password was changed %d times", got)
			}
			h.wantPassword(t, alice, newPassword)
		})
	}
}
