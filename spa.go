package reset

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// activationHeader carries an activation, or the query of a mailed link, from a
// single-page app. A header is in no access log.
const activationHeader = "Reset-Activation"

// appOrigins are the origins of single-page apps, Config.AllowedOrigins.
type appOrigins []string

// allow reports whether a request comes from one of them.
func (o appOrigins) allow(r *http.Request) bool {
	origins := r.Header.Values("Origin")
	return len(origins) == 1 && slices.Contains(o, origins[0])
}

// headers lets an app read the response. It allows no credentials, since no
// JSON route needs a cookie.
func (o appOrigins) headers(w http.ResponseWriter, r *http.Request) {
	if len(o) == 0 {
		return
	}
	w.Header().Add("Vary", "Origin")
	if o.allow(r) {
		w.Header().Set("Access-Control-Allow-Origin", r.Header.Get("Origin"))
		w.Header().Set("Access-Control-Expose-Headers", "Reset-Reason, Retry-After")
	}
}

// isPreflight reports whether a browser asks if an app may call a route.
func isPreflight(r *http.Request) bool {
	return r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != ""
}

// preflight answers that, after headers.
func (o appOrigins) preflight(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Access-Control-Allow-Methods", "GET, POST")
	h.Set("Access-Control-Allow-Headers", "Content-Type, "+activationHeader)
	h.Set("Access-Control-Max-Age", "600")
	w.WriteHeader(http.StatusNoContent)
}

// isJSONGet reports whether a request is for what an app shows a form with.
func isJSONGet(r *http.Request) bool {
	return r.Method == http.MethodGet && len(r.Header.Values(activationHeader)) > 0
}

// getJSON answers what an app needs for the form of a link: whether the link is
// live, the activation in it, whose account it is for and which passwords are
// accepted. Like the page it redeems nothing.
func (s *Service) getJSON(r *http.Request) (answer, error) {
	activation := r.Header.Get(activationHeader)
	if _, ok := hashActivation(activation); !ok {
		activation, _ = linkActivation(strings.TrimPrefix(activation, "?"))
	}
	a, user, err := s.find(r.Context(), activation)
	if err != nil {
		return answer{}, err
	}
	body, err := json.Marshal(struct {
		Activation       string `json:"activation"`
		Email            string `json:"email"`
		ExpiresIn        int    `json:"expiresIn"` // seconds
		MinPassword      int    `json:"minPassword"`
		MaxPassword      int    `json:"maxPassword"`
		MaxPasswordBytes int    `json:"maxPasswordBytes"`
	}{
		activation, user.Email, int(a.Expires.Sub(s.clock.now(r.Context())) / time.Second),
		s.cfg.MinPassword, maxCharacters(s.cfg.MaxPasswordBytes), s.cfg.MaxPasswordBytes,
	})
	if err != nil {
		return answer{}, fmt.Errorf("reset: JSON of a link: %w", err)
	}
	return answer{status: http.StatusOK, body: string(body)}, nil
}
