package reset_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/gopassreset/reset"
	"github.com/gopassreset/reset/resettest"
)

// An apiMailer sends through a provider's HTTP API.
type apiMailer struct {
	url, key string
}

func (a apiMailer) Send(ctx context.Context, m reset.Message) error {
	if _, err := reset.CanonicalAddress(m.To); err != nil {
		return fmt.Errorf("%w: %w", reset.ErrUndeliverable, err)
	}
	body, err := json.Marshal(map[string]any{
		"from": "Example <no-reply@example.com>", "to": m.To,
		"subject": m.Subject, "text": m.Text, "html": m.HTML,
		"track_clicks": false, // it would rewrite the secret link
	})
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, a.url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", "Bearer "+a.key)
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Idempotency-Key", fmt.Sprintf("%x", m.ID)) // the same for all attempts: no mail arrives twice
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		return err // is retried
	}
	defer response.Body.Close()
	switch response.StatusCode {
	case http.StatusOK, http.StatusAccepted:
		return nil
	case http.StatusUnprocessableEntity: // this recipient
		return fmt.Errorf("%w: %s", reset.ErrUndeliverable, response.Status)
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusTooManyRequests, http.StatusServiceUnavailable: // every message
		return fmt.Errorf("%w: %s", reset.ErrUnavailable, response.Status)
	}
	return fmt.Errorf("mail API: %s", response.Status) // not the body, which may repeat the link
}

// A Mailer of your own, for a provider's HTTP API.
func ExampleMailer() {
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var mail struct{ To, Subject string }
		json.NewDecoder(r.Body).Decode(&mail)
		fmt.Println(mail.To, "gets:", mail.Subject)
		w.WriteHeader(http.StatusAccepted)
	}))
	defer api.Close()

	var mailer reset.Mailer = apiMailer{url: api.URL, key: "secret"}
	err := mailer.Send(context.Background(), reset.Message{
		ID: "00e36e9e2bd5", To: "ann@example.com", Subject: "Choose a new password", Text: "…", HTML: "<p>…</p>",
	})
	fmt.Println("error:", err)
	// Output:
	// ann@example.com gets: Choose a new password
	// error: <nil>
}

func TestAPIMailer(t *testing.T) {
	resettest.TestMailer(t, func(t *testing.T) reset.Mailer {
		api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) }))
		t.Cleanup(api.Close)
		return apiMailer{url: api.URL}
	})
}
