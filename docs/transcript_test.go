package docs_test

import (
	"bufio"
	"context"
	"crypto/rand"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/gopassreset/reset"
	_ "github.com/gopassreset/reset/internal/bubble"
	"github.com/gopassreset/reset/resettest"
)

// alice is a host with one account.
type alice struct{}

func (alice) FindByEmail(_ context.Context, address string) (reset.User, error) {
	if address != "alice@example.com" {
		return reset.User{}, reset.ErrNoUser
	}
	return reset.User{ID: "1", Email: address, Name: "Alice"}, nil
}

func (alice) HashPassword(context.Context, string) (string, error) { return "hash", nil }

func (alice) SetPassword(context.Context, string, string) error { return nil }

// The handler answers what contract.md shows. Time stands still meanwhile.
func TestTranscript(t *testing.T) { synctest.Test(t, testTranscript) }

func testTranscript(t *testing.T) {
	page, err := os.ReadFile("contract.md")
	if err != nil {
		t.Fatal(err)
	}
	key := rand.Text() + rand.Text() // KEY on the page
	svc, err := reset.New(reset.Config{
		Users: alice{}, Store: new(resettest.MemStore), Mailer: new(resettest.Mailbox),
		BaseURL: "https://app.example.com/account", APIKeys: []string{key},
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	handler := svc.Handler()

	exchanges := snippets(string(page), "http")
	if len(exchanges) == 0 {
		t.Fatal("no transcript")
	}
	activation := regexp.MustCompile(`"activation":"([A-Za-z0-9_-]{24})"`)
	shown, real := "none", "none"
	for _, exchange := range exchanges {
		request, answer, ok := strings.Cut(exchange, "\n\nHTTP/1.1 ")
		if !ok {
			t.Fatalf("no answer in\n%s", exchange)
		}
		want := readResponse(t, "HTTP/1.1 "+answer)
		recorder := httptest.NewRecorder()
		handler.ServeHTTP(recorder, readRequest(t, strings.NewReplacer(shown, real, "KEY", key).Replace(request)))
		got := responseOf(t, recorder.Result())
		if m, n := activation.FindStringSubmatch(want.body), activation.FindStringSubmatch(got.body); m != nil && n != nil {
			shown, real = m[1], n[1]
			got.body = strings.Replace(got.body, real, shown, 1)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s\n\ngot  %+v\nwant %+v", request, got, want)
		}
	}
}

type response struct {
	status string
	header http.Header
	body   string
}

func responseOf(t *testing.T, r *http.Response) response {
	t.Helper()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response{r.Status, r.Header, string(body)}
}

func readResponse(t *testing.T, text string) response {
	t.Helper()
	r, err := http.ReadResponse(bufio.NewReader(strings.NewReader(text)), nil)
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	return responseOf(t, r)
}

// readRequest reads a request as the page shows it: without Host,
// Content-Length and the version.
func readRequest(t *testing.T, text string) *http.Request {
	t.Helper()
	head, body, _ := strings.Cut(text, "\n\n")
	line, fields, _ := strings.Cut(head, "\n")
	shown, err := http.ReadRequest(bufio.NewReader(strings.NewReader(line + " HTTP/1.1\n" + fields + "\n\n")))
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	r := httptest.NewRequestWithContext(t.Context(), shown.Method, shown.URL.Path, strings.NewReader(body))
	r.Header = shown.Header
	return r
}
