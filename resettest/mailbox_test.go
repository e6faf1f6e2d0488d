package resettest_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/html"

	"github.com/gopassreset/reset"
	"github.com/gopassreset/reset/resettest"
)

func TestMailboxIsMailer(t *testing.T) {
	resettest.TestMailer(t, func(*testing.T) reset.Mailer { return new(resettest.Mailbox) })
}

func send(t *testing.T, b *resettest.Mailbox, messages ...reset.Message) {
	t.Helper()
	for _, m := range messages {
		if err := b.Send(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
}

func wantMail(t *testing.T, b *resettest.Mailbox, address, id string) {
	t.Helper()
	m, err := b.Wait(t.Context(), address)
	if err != nil || m.ID != id {
		t.Errorf("Wait(%q) = %q, %v; want %q", address, m.ID, err, id)
	}
}

func TestMailboxWait(t *testing.T) {
	var b resettest.Mailbox
	send(t, &b,
		reset.Message{ID: "1", To: "a@example.com"},
		reset.Message{ID: "2", To: "b@example.com"},
		reset.Message{ID: "3", To: "A@Example.COM"},
		reset.Message{ID: "4", To: "ä@example.com"},
	)
	wantMail(t, &b, "a@example.com", "1")
	wantMail(t, &b, "a@example.com", "3")
	wantMail(t, &b, "B@example.com", "2")
	wantMail(t, &b, "a\u0308@EXAMPLE.com", "4")
	if got := len(b.Messages()); got != 4 {
		t.Errorf("Messages returned %d after Wait, want 4", got)
	}
	if _, err := b.Wait(t.Context(), "no address"); !errors.Is(err, reset.ErrBadRequest) {
		t.Errorf("Wait for no address: got error %v, want ErrBadRequest", err)
	}
}

func TestMailboxWaitBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b resettest.Mailbox
		got := make(chan string)
		for range 2 {
			go func() {
				m, err := b.Wait(t.Context(), "a@example.com")
				if err != nil {
					t.Error(err)
				}
				got <- m.ID
			}()
		}
		synctest.Wait()
		send(t, &b, reset.Message{ID: "other", To: "b@example.com"})
		synctest.Wait()
		select {
		case id := <-got:
			t.Errorf("Wait returned %q, which is to somebody else", id)
		default:
		}
		for _, id := range []string{"1", "2"} { // one waits on
			send(t, &b, reset.Message{ID: id, To: "a@example.com"})
			if m := <-got; m != id {
				t.Errorf("Wait returned %q, want %q", m, id)
			}
		}

		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := b.Wait(ctx, "a@example.com"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Wait in vain: got error %v, want DeadlineExceeded", err)
		}
	})
}

func TestMailboxIsBounded(t *testing.T) {
	var b resettest.Mailbox
	for i := range 1010 {
		send(t, &b, reset.Message{ID: fmt.Sprint(i), To: "a@example.com"})
	}
	messages := b.Messages()
	if len(messages) != 1000 || messages[0].ID != "10" || messages[999].ID != "1009" {
		t.Errorf("got %d messages, from %s to %s; want 1000, from 10 to 1009", len(messages), messages[0].ID, messages[len(messages)-1].ID)
	}
	wantMail(t, &b, "a@example.com", "10")
}

func TestMailboxGoroutines(t *testing.T) {
	var b resettest.Mailbox
	var wg sync.WaitGroup
	for i := range 20 {
		address := fmt.Sprintf("user%d@example.com", i)
		wg.Go(func() { send(t, &b, reset.Message{ID: address, To: address}) })
		wg.Go(func() { wantMail(t, &b, address, address) })
		wg.Go(func() { get(t, &b, "/") })
	}
	wg.Wait()
}

// get returns the page and the status.
func get(t *testing.T, h http.Handler, target string) (string, int) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, target, nil))
	return w.Body.String(), w.Code
}

// elements parses a page and returns its elements.
func elements(t *testing.T, page string) (all []*html.Node) {
	t.Helper()
	doc, err := html.Parse(strings.NewReader(page))
	if err != nil {
		t.Fatal(err)
	}
	for n := range doc.Descendants() {
		if n.Type == html.ElementNode {
			all = append(all, n)
		}
	}
	return all
}

func attr(n *html.Node, key string) string {
	for _, a := range n.Attr {
		if a.Key == key {
			return a.Val
		}
	}
	return ""
}

func text(n *html.Node) string {
	var b strings.Builder
	for d := range n.Descendants() {
		if d.Type == html.TextNode {
			b.WriteString(d.Data)
		}
	}
	return b.String()
}

func TestMailboxPage(t *testing.T) {
	var b resettest.Mailbox
	page, status := get(t, &b, "/")
	if status != http.StatusOK || !strings.Contains(page, "No mail yet") {
		t.Errorf("an empty mailbox: got status %d and %s", status, page)
	}
	send(t, &b,
		reset.Message{ID: "1", To: "a@example.com", Subject: "First", Text: "text of the first"},
		reset.Message{ID: "2", To: "b@example.com", Subject: "Second", Text: "text of the second", HTML: "<p>second"},
		reset.Message{ID: "3", To: "c@example.com", Subject: "Third", Text: "text of the third"},
	)
	for _, test := range []struct {
		query, text string
		status      int
		frames      int
	}{
		{"", "text of the third", 200, 0}, // the newest
		{"?mail=2", "text of the second", 200, 1},
		{"?mail=1", "text of the first", 200, 0},
		{"?mail=4", "no such mail", 404, 0},
		{"?mail=x%00%3Cscript%3E", "no such mail", 404, 0},
	} {
		page, status := get(t, &b, "/"+test.query)
		if status != test.status || !strings.Contains(page, test.text) {
			t.Errorf("%s: got status %d, want %d, and a page with %q; got %s", test.query, status, test.status, test.text, page)
		}
		var subjects []string
		current, frames := 0, 0
		for _, e := range elements(t, page) {
			switch {
			case attr(e, "class") == "subject":
				subjects = append(subjects, text(e))
			case attr(e, "aria-current") != "":
				current++
			case e.Data == "iframe":
				frames++
			}
		}
		if got := strings.Join(subjects, " "); got != "Third Second First" {
			t.Errorf("%s: listed %s, want Third Second First", test.query, got)
		}
		if want := map[int]int{200: 1, 404: 0}[test.status]; current != want {
			t.Errorf("%s: %d mails are marked as current, want %d", test.query, current, want)
		}
		if frames != test.frames {
			t.Errorf("%s: %d frames, want %d", test.query, frames, test.frames)
		}
	}
}

func TestMailboxPageMounted(t *testing.T) {
	var b resettest.Mailbox
	send(t, &b, reset.Message{ID: "1", To: "a@example.com", Text: "first"}, reset.Message{ID: "2", To: "a@example.com", Text: "second"})
	mux := http.NewServeMux()
	mux.Handle("/inbox", &b)
	mux.Handle("/a/inbox/", http.StripPrefix("/a/inbox", &b))
	srv := httptest.NewServer(mux)
	defer srv.Close()
	for _, path := range []string{"/inbox", "/a/inbox/"} {
		page, _ := get(t, mux, path)
		for _, e := range elements(t, page) {
			href := attr(e, "href")
			if href == "" {
				continue
			}
			base := httptest.NewRequest(http.MethodGet, path, nil).URL
			target, err := base.Parse(href)
			if err != nil {
				t.Fatal(err)
			}
			res, err := http.Get(srv.URL + target.String())
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, res.Body)
			res.Body.Close()
			if res.StatusCode != http.StatusOK {
				t.Errorf("%s: the link %s leads to %s with status %d", path, href, target, res.StatusCode)
			}
		}
	}
}

func TestMailboxPageIsSafe(t *testing.T) {
	const attack = `</textarea></pre></title></style>"'><script>alert(1)</script><img src=x onerror=alert(1)>{{.}}`
	var b resettest.Mailbox
	m := reset.Message{
		ID: attack, Kind: attack, To: "a@example.com", Name: attack, Locale: attack, Subject: attack, Text: attack,
		Link: "javascript:alert(1)", RevokeLink: attack, HTML: attack,
	}
	send(t, &b, m)
	page, _ := get(t, &b, "/")
	frames := 0
	for _, e := range elements(t, page) {
		switch e.Data {
		case "script", "img", "textarea", "base":
			t.Errorf("the page has an element of the message: %s", e.Data)
		case "iframe":
			frames++
			if got, want := attr(e, "srcdoc"), `<base target="_blank">`+attack; got != want {
				t.Errorf("the frame holds %s, want %s", got, want)
			}
			if sandbox := attr(e, "sandbox"); sandbox == "" || strings.Contains(sandbox, "allow-scripts") || strings.Contains(sandbox, "allow-same-origin") {
				t.Errorf("the frame has the sandbox %q", sandbox)
			}
		case "pre":
			if got := text(e); got != attack {
				t.Errorf("the text part is shown as %s, want %s", got, attack)
			}
		case "a":
			if href := attr(e, "href"); strings.HasPrefix(href, "javascript:") {
				t.Errorf("the page links to %s", href)
			}
		}
		for _, a := range e.Attr {
			if strings.HasPrefix(a.Key, "on") {
				t.Errorf("the page has the attribute %s=%s", a.Key, a.Val)
			}
		}
	}
	if frames != 1 {
		t.Errorf("%d frames, want 1", frames)
	}
}

func TestMailboxPageHeaders(t *testing.T) {
	var b resettest.Mailbox
	for _, test := range []struct {
		method string
		status int
	}{
		{http.MethodGet, 200}, {http.MethodHead, 200}, {http.MethodPost, 405}, {http.MethodDelete, 405}, {http.MethodOptions, 405},
	} {
		w := httptest.NewRecorder()
		b.ServeHTTP(w, httptest.NewRequest(test.method, "/", nil))
		if w.Code != test.status {
			t.Errorf("%s: got status %d, want %d", test.method, w.Code, test.status)
		}
		for key, want := range map[string]string{
			"Cache-Control":           "no-store",
			"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
			"Referrer-Policy":         "no-referrer",
			"X-Content-Type-Options":  "nosniff",
			"X-Robots-Tag":            "noindex",
			"Allow":                   map[int]string{405: "GET, HEAD"}[test.status],
			"Content-Type":            map[int]string{200: "text/html; charset=utf-8", 405: "text/plain; charset=utf-8"}[test.status],
		} {
			if got := w.Header().Get(key); got != want {
				t.Errorf("%s: got %s: %q, want %q", test.method, key, got, want)
			}
		}
	}
}

// A page under a name of its own that leads to this machine reads no mail.
func TestMailboxPageRebound(t *testing.T) {
	for _, tt := range []struct {
		peer, host string
		status     int
	}{
		{"127.0.0.1:4711", "127.0.0.1:8080", 200},
		{"127.0.0.1:4711", "localhost:8080", 200},
		{"127.0.0.1:4711", "LOCALHOST", 200},
		{"[::1]:4711", "[::1]:8080", 200},
		{"127.0.0.1:4711", "evil.example:8080", 403},
		{"127.0.0.1:4711", "127.0.0.1.evil.example", 403},
		{"127.0.0.1:4711", "localhost.evil.example", 403},
		{"[::1]:4711", "192.0.2.1", 403},
		{"[::ffff:127.0.0.1]:4711", "evil.example", 403},
		{"127.0.0.1:4711", "", 403},
		{"192.0.2.7:4711", "demo.example.com", 200},
		{"@", "demo.example.com", 200},
	} {
		r := httptest.NewRequest("GET", "/inbox", nil)
		r.RemoteAddr, r.Host = tt.peer, tt.host
		w := httptest.NewRecorder()
		new(resettest.Mailbox).ServeHTTP(w, r)
		if w.Code != tt.status {
			t.Errorf("%s from %s: got %d, want %d", tt.host, tt.peer, w.Code, tt.status)
		}
	}
}
