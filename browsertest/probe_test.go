package browsertest

import (
	"context"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

func TestProbe(t *testing.T) {
	h := newHost(t)
	h.users.add(alice, "")
	b := newTab(t, h)
	b.open(h.link(t, alice))
	b.choose(newPassword)
	b.wantPage(pageDone)
	ctx, c := context.WithTimeout(b.ctx, 6*time.Second)
	defer c()
	err := chromedp.Do(ctx, chromedp.NavigateBack())
	t.Log(err)
	t.Log(evaluate[string](b, `document.body.innerText + " | " + JSON.stringify([...document.querySelectorAll("input")].map(i=>i.id+"="+i.value)) + performance.getEntriesByType("navigation")[0].type + location.href`))
}
