package browsertest

import (
	"slices"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// focused names what has the focus and says whether one sees it.
const focused = `(() => {
	const e = document.activeElement;
	const style = getComputedStyle(e);
	const seen = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2;
	return (e.id || e.getAttribute("type") || e.localName) + (seen ? "" : " (unseen)");
})()`

// awaitFocus waits for what has autofocus to get it, which browsers do with
// the first frame that they draw.
func (b *tab) awaitFocus() {
	b.t.Helper()
	value(b, chromedp.Poll[bool](`document.activeElement !== document.body`))
}

// tabOrder returns what has the focus at first and after each Tab, n in all.
func (b *tab) tabOrder(n int) []string {
	b.t.Helper()
	b.awaitFocus()
	order := []string{evaluate[string](b, focused)}
	for range n - 1 {
		b.do(chromedp.KeyEvent(kb.Tab))
		order = append(order, evaluate[string](b, focused))
	}
	return order
}

func TestKeyboard(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.users.add(alice, "")
	b := newTab(t, h)

	b.open(h.base + "/forgot")
	if got, want := b.tabOrder(4), []string{"email", "submit", "a", "a"}; !slices.Equal(got, want) {
		t.Errorf("forgot: the order is %q, want %q", got, want)
	}
	b.open(h.base + "/forgot")
	b.awaitFocus()
	b.do(chromedp.KeyEvent("alice"))
	b.follow(chromedp.KeyEvent(kb.Enter))
	b.wantPage(pageForgot)
	b.awaitFocus()
	if got := evaluate[string](b, focused); got != "email" {
		t.Errorf("after a mistake %s has the focus", got)
	}
	b.do(chromedp.KeyEvent("@example.com")) // behind what was typed before
	b.follow(chromedp.KeyEvent(kb.Enter))
	b.wantPage(pageSent)

	b.open(h.mail(t, alice).Link)
	if got, want := b.tabOrder(4), []string{"password", "confirm", "show", "submit"}; !slices.Equal(got, want) {
		t.Errorf("choose: the order is %q, want %q", got, want)
	}
	b.open(h.base + "/reset")
	b.awaitFocus()
	b.do(
		chromedp.KeyEvent(newPassword),
		chromedp.KeyEvent(kb.Tab),
		chromedp.KeyEvent("something else"),
		chromedp.KeyEvent(kb.Tab),
		chromedp.KeyEvent(" "),
	)
	if !evaluate[bool](b, `document.querySelector("#show").checked && document.querySelector("#password").type === "text"`) {
		t.Errorf("the space bar does not show the passwords")
	}
	b.do(chromedp.KeyEvent(kb.Tab))
	b.follow(chromedp.KeyEvent(kb.Enter))
	b.wantPage(pageChoose)
	b.awaitFocus()
	if got := evaluate[string](b, focused); got != "password" { // both have to be entered again
		t.Errorf("after a mistake in the second field %s has the focus", got)
	}
	b.do(
		chromedp.KeyEvent(newPassword),
		chromedp.KeyEvent(kb.Tab),
		chromedp.KeyEvent(newPassword),
	)
	b.follow(chromedp.KeyEvent(kb.Enter))
	b.wantPage(pageDone)
	h.wantPassword(t, alice, newPassword)
}
