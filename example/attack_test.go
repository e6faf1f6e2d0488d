package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gopassreset/reset"
	"github.com/gopassreset/reset/resettest"
)

// An attack is what some clients send at the same time.
type attack struct {
	name    string
	clients int
	send    func(client *http.Client, i int) (status int, err error) // of the i-th request of all
	answers []int                                                    // that are refusals, or tell nothing
	event   string                                                   // that names each of the clients
}

const victims = 10 // user0000001 to user0000010; honest people follow

// TestAttack attacks a host from many clients in every way at once, while
// honest people reset their passwords. With RESET_TEST_ATTACK=1 the flood has
// 50,000 requests and there are 50 honest people, who have 10 s each; memory is
// measured only then, since caches still fill during fewer.
func TestAttack(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("needs all of 127.0.0.0/8, and /proc")
	}
	flood, people, timeout, measured := 2000, 10, 2*time.Minute, false
	if os.Getenv("RESET_TEST_ATTACK") != "" {
		flood, people, timeout, measured = 50_000, 50, 10*time.Second, true
	}
	goroutines, files := runtime.NumGoroutine(), openFiles(t)

	var logged lockedBuffer
	h, stop := startLogging(t, &logged, "-users", fmt.Sprint(victims+people))
	planted, err := h.service.RequestReset(t.Context(), "bob@example.com", reset.RequestOptions{PreventEmailSending: true})
	if err != nil {
		t.Fatal(err)
	}
	plantedLink := h.base + "/account/reset?activation=" + planted

	const clients = 40 // of the flood
	var sent atomic.Int64
	var memory atomic.Int64         // at half of the flood
	begin := make(chan int, people) // the honest people, evenly over the flood
	commas := strings.Repeat(",", 900_000)
	publicRequest := func(client *http.Client, email string) (int, error) {
		n := int(sent.Add(1))
		if n == flood/2 {
			memory.Store(int64(resident(t)))
		}
		if (n-1)*people%flood < people {
			begin <- (n - 1) * people / flood
		}
		return post(t, client, h.base+"/account/forgot", "application/x-www-form-urlencoded", url.Values{"email": {email}}.Encode())
	}
	attacks := []attack{
		{"flood", clients * 3 / 4, func(client *http.Client, i int) (int, error) {
			return publicRequest(client, fmt.Sprintf("nobody%d@example.net", i))
		}, []int{303, 429}, "client_limited"},
		{"bombing", clients / 4, func(client *http.Client, i int) (int, error) {
			return publicRequest(client, loadUser(1+i%victims, "", 0).Email)
		}, []int{303, 429}, "client_limited"},
		{"planted cookies", 5, func(client *http.Client, i int) (int, error) {
			r := request(t, http.MethodPost, h.base+"/account/reset", "application/x-www-form-urlencoded", "check=&password=taken+over+by+me&confirm=taken+over+by+me")
			if i%2 == 0 {
				r = request(t, http.MethodGet, h.base+"/account/reset", "", "")
			}
			r.AddCookie(&http.Cookie{Name: "reset", Value: rand.Text()[:24]})
			return do(client, r)
		}, []int{400, 429}, "activation_refused"},
		{"wrong activations", 5, func(client *http.Client, _ int) (int, error) {
			return post(t, client, h.base+"/account/reset", "application/json", fmt.Sprintf(`{"activation":%q,"newPassword":"taken over by me"}`, rand.Text()[:24]))
		}, []int{400, 429}, "activation_refused"},
		{"wrong keys", 5, func(client *http.Client, _ int) (int, error) {
			r := request(t, http.MethodPost, h.base+"/v1/auth/reset-password", "application/json", `{"email":"alice@example.com"}`)
			r.Header.Set("Authorization", "Bearer "+rand.Text()+rand.Text())
			return do(client, r)
		}, []int{401, 429}, "key_refused"},
		{"commas", 5, func(client *http.Client, i int) (int, error) {
			r := request(t, http.MethodPost, h.base+"/v1/auth/reset-password", "application/json", `{}`)
			r.Header.Set("X-Forwarded-For", commas[:20_000])
			if i%50 == 0 { // more than the server reads: it may hang up meanwhile
				r.Header.Set("X-Forwarded-For", commas)
				if status, err := do(client, r); err != nil && !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) || err == nil && status != http.StatusRequestHeaderFieldsTooLarge {
					return status, err
				}
				return http.StatusUnauthorized, nil
			}
			return do(client, r)
		}, []int{401, 429}, "key_refused"},
	}

	var attackers, honest sync.WaitGroup
	naming := make(map[string]string) // the event that names a client
	for n, a := range attacks {
		for c := range a.clients {
			address := fmt.Sprintf("127.1.%d.%d", n, c+1)
			naming[address] = a.event
			attackers.Go(func() {
				client := clientAt(address)
				defer client.CloseIdleConnections()
				client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
				for i := c; i < flood/clients*a.clients; i += a.clients {
					status, err := a.send(client, i)
					if err != nil || !slices.Contains(a.answers, status) {
						t.Errorf("%s: got %d, %v, want one of %v", a.name, status, err, a.answers)
						return
					}
				}
			})
		}
	}
	var succeeded atomic.Int64
	for range people {
		honest.Go(func() {
			i, ok := <-begin
			if !ok {
				return // the flood ended early
			}
			began := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), timeout)
			defer cancel()
			client := clientAt(fmt.Sprintf("127.2.0.%d", i+1))
			defer client.CloseIdleConnections()
			if err := resetPassword(ctx, t, h, client, loadUser(victims+1+i, "", 0).Email, plantedLink); err != nil {
				t.Errorf("honest person %d after %v: %v", i, time.Since(began), err)
				return
			}
			succeeded.Add(1)
		})
	}
	attackers.Wait()
	close(begin)
	honest.Wait()
	if n := int(succeeded.Load()); n != people {
		t.Errorf("%d of %d honest people have a new password", n, people)
	}

	grown := int64(resident(t)) - memory.Load()
	t.Logf("%d public requests; resident memory grew by %d kB in the second half", sent.Load(), grown>>10)
	if measured && grown > 48<<20 {
		t.Errorf("resident memory grew by %d MB", grown>>20)
	}
	wantBounded(t, h, people)
	for i := range victims {
		email := loadUser(i+1, "", 0).Email
		n := 0
		for _, m := range h.mailbox.Messages() {
			if m.To == email {
				n++
			}
		}
		if n < 1 || n > 3 {
			t.Errorf("%s got %d mails, want 1 to 3", email, n)
		}
	}
	for _, email := range []string{"alice@example.com", "bob@example.com", loadUser(1, "", 0).Email} {
		want(t, email+" with the old password", newBrowser(t, h).login(email, demoPassword), 200, "/")
	}

	for line := range strings.Lines(logged.String()) {
		if strings.Contains(line, "level=ERROR") {
			t.Errorf("the log has %s", line)
		}
	}
	named := make(map[string]bool) // the events and clients in the log
	for _, m := range regexp.MustCompile(`level=WARN .*event=(\w+) .*client=(\S+)`).FindAllStringSubmatch(logged.String(), -1) {
		named[m[1]+" "+m[2]] = true
		if naming[m[2]] == "" {
			t.Errorf("the log accuses an honest client: %s", m[0])
		}
	}
	for client, event := range naming {
		if !named[event+" "+client] {
			t.Errorf("no %s names the attacker's client %s", event, client)
		}
	}

	stop()
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	eventually(t, "goroutines", func() (int, bool) { n := runtime.NumGoroutine(); return n, n <= goroutines })
	eventually(t, "open files", func() (int, bool) { n := openFiles(t); return n, n <= files })
}

// resetPassword resets a password through the pages, and signs in with it.
// Between the form and its submission a hostile page plants another link.
func resetPassword(ctx context.Context, t *testing.T, h *host, client *http.Client, email, planted string) error {
	status, err := post(t, client, h.base+"/account/forgot", "application/x-www-form-urlencoded", url.Values{"email": {email}}.Encode())
	if err != nil || status != http.StatusOK {
		return fmt.Errorf("forgot: %d, %w", status, err)
	}
	m, err := h.mailbox.Wait(ctx, email)
	if err != nil {
		return err
	}
	browser := *client
	browser.Transport = planting{client.Transport, planted}
	if err := resettest.ChangePassword(ctx, &browser, m.Link, otherPassword); err != nil {
		return err
	}
	status, err = post(t, client, h.base+"/login", "application/x-www-form-urlencoded", url.Values{"email": {email}, "password": {otherPassword}}.Encode())
	if err != nil || status != http.StatusOK {
		return fmt.Errorf("sign in: %d, %w", status, err)
	}
	return nil
}

// planting is a browser that shows a hostile page, whose image has a link of
// the attacker's as its source, before it posts a form.
type planting struct {
	http.RoundTripper
	link string
}

func (p planting) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method == http.MethodPost {
		image, err := http.NewRequestWithContext(r.Context(), http.MethodGet, p.link, nil)
		if err != nil {
			return nil, err
		}
		image.Header = http.Header{"Cookie": r.Header["Cookie"], "Sec-Fetch-Dest": {"image"}, "Sec-Fetch-Site": {"same-site"}}
		response, err := p.RoundTripper.RoundTrip(image)
		if err != nil {
			return nil, err
		}
		response.Body.Close()
		for _, c := range response.Cookies() { // a browser would send it instead
			r = r.Clone(r.Context())
			r.Header.Set("Cookie", c.Name+"="+c.Value)
		}
	}
	return p.RoundTripper.RoundTrip(r)
}

// wantBounded waits until no mail is queued, and counts what the database holds.
func wantBounded(t *testing.T, h *host, people int) {
	t.Helper()
	count := func(table string) (n int) {
		if err := h.db.NewSelect().Table(table).ColumnExpr("count(*)").Scan(t.Context(), &n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	eventually(t, "queued mails", func() (int, bool) { n := count("reset_mails"); return n, n == 0 })
	for table, most := range map[string]int{
		"reset_activations": 2*3*victims + 1,          // nobody's but the victims' and the attacker's own; mail that waited has two
		"reset_history":     5*victims + 2*people + 2, // what is over the budget has one an hour
		"reset_locks":       victims + people + 1,
	} {
		if n := count(table); n > most {
			t.Errorf("%d rows in %s, want at most %d", n, table, most)
		}
	}
}

// clientAt returns a client whose connections come from a loopback address.
func clientAt(address string) *http.Client {
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}
	return &http.Client{Transport: &http.Transport{DialContext: dialer.DialContext}}
}

func request(t *testing.T, method, at, contentType, body string) *http.Request {
	r, err := http.NewRequestWithContext(t.Context(), method, at, strings.NewReader(body))
	if err != nil {
		panic(err)
	}
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	return r
}

func post(t *testing.T, client *http.Client, at, contentType, body string) (status int, err error) {
	return do(client, request(t, http.MethodPost, at, contentType, body))
}

func do(client *http.Client, r *http.Request) (status int, err error) {
	response, err := client.Do(r)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	_, err = io.Copy(io.Discard, response.Body)
	return response.StatusCode, err
}

// eventually waits until a number is as it should be.
func eventually(t *testing.T, what string, check func() (n int, ok bool)) {
	t.Helper()
	tooLate := time.After(30 * time.Second)
	for {
		n, ok := check()
		if ok {
			return
		}
		select {
		case <-tooLate:
			stacks := make([]byte, 1<<20)
			t.Fatalf("%d %s are left\n%s", n, what, stacks[:runtime.Stack(stacks, true)])
		default:
			runtime.Gosched()
		}
	}
}

// openFiles counts the open file descriptors of this process.
func openFiles(t *testing.T) int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// resident returns the memory of this process in bytes, less what Go can free.
func resident(t *testing.T) int {
	debug.FreeOSMemory()
	b, err := os.ReadFile("/proc/self/statm")
	var size, pages int
	if err == nil {
		_, err = fmt.Sscan(string(b), &size, &pages)
	}
	if err != nil {
		t.Error(err)
	}
	return pages * os.Getpagesize()
}
