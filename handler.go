package reset

import (
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"strings"
)

// Handler returns the handler for trusted back ends, which answers
//
//	POST /v1/auth/reset-password {"email", "maxRequests", "preventEmailSending"}
//	POST /v1/auth/new-password   {"requestId", "newPassword"}
//
// with the header "Authorization: KEY" or "Authorization: Bearer KEY".
// maxRequests, 1 to Config.MaxRequestsCeiling, and preventEmailSending are
// optional. The answers are JSON, stable to the byte, and errors have the
// members "error" and "message":
//
//	200  {"activation": ID}, or {"message": "ok"} if no user has the address
//	     and from new-password
//	400  BAD_REQUEST: malformed, a password that is refused, or an activation
//	     that is not live; the header Reset-Reason says which: the name of the
//	     member at fault, "body" for no valid JSON, "invalid_activation", or the
//	     Reason of [PasswordError], such as "too_short"
//	401  UNAUTHORIZED: no such key
//	403  FORBIDDEN: a browser
//	404, 405  NOT_FOUND, METHOD_NOT_ALLOWED
//	413, 415  BAD_REQUEST: more than 16 KiB, not application/json; Reset-Reason
//	     is "too_large" or "content_type"
//	429  TOO_MANY_REQUESTS, with Retry-After in seconds; also a wrong key or
//	     activation of a client that has sent 60 within a minute
//	500  UNKNOWN_ERROR, with Retry-After where the host or its store is busy
//
// Its answers reveal whether an address has an account, and contain activations,
// which take accounts over: it refuses requests from browsers. Mount it at "/v1/auth/",
// behind [http.StripPrefix] if that is not at the root.
//
// It panics if Config.APIKeys is empty.
func (s *Service) Handler() http.Handler {
	if len(s.cfg.APIKeys) == 0 {
		panic("reset: Handler needs Config.APIKeys")
	}
	s.noteStart()
	keys := make([][sha256.Size]byte, len(s.cfg.APIKeys))
	for i, key := range s.cfg.APIKeys {
		keys[i] = sha256.Sum256([]byte(key))
	}
	routes := s.trustedRoutes()
	return s.guard(func(w http.ResponseWriter, r *http.Request) {
		route := routes[r.URL.Path]
		switch {
		case route == nil:
			answerNotFound.write(w)
		case r.Method != http.MethodPost:
			w.Header().Set("Allow", http.MethodPost)
			answerMethodNotAllowed.write(w)
		default:
			s.serveTrusted(w, r, keys, route)
		}
	}, func(w http.ResponseWriter, _ *http.Request) { answerUnknown.write(w) })
}

func (s *Service) trustedRoutes() map[string]jsonRoute {
	return map[string]jsonRoute{
		"/v1/auth/reset-password": s.postResetPassword,
		"/v1/auth/new-password":   s.postNewPassword,
	}
}

func (s *Service) serveTrusted(w http.ResponseWriter, r *http.Request, keys [][sha256.Size]byte, route jsonRoute) {
	key := authorized(r, keys)
	if key < 0 {
		if err := s.refusals.key(r.Context()); err != nil {
			s.answerTo(r.Context(), w, err, answerUnknown).write(w)
			return
		}
		w.Header().Set("WWW-Authenticate", `Bearer realm="reset"`)
		answerUnauthorized.write(w)
		return
	}
	r = r.WithContext(withKey(r.Context(), key))
	switch {
	case len(r.Header.Values("Origin")) > 0 || len(r.Header.Values("Sec-Fetch-Site")) > 0:
		s.reportForeign(r)
		answerForbidden.write(w)
	case !isJSON(r):
		s.writeJSON(w, r, answerUnsupported)
	default:
		s.serveJSON(w, r, route, answerUnknown)
	}
}

// authorized returns the index of the request's key, or -1. It compares hashes,
// all of them, so that the time it takes says nothing about a key.
func authorized(r *http.Request, keys [][sha256.Size]byte) int {
	values := r.Header.Values("Authorization")
	if len(values) != 1 {
		return -1
	}
	key := values[0]
	if scheme, rest, ok := strings.Cut(key, " "); ok && strings.EqualFold(scheme, "Bearer") {
		key = strings.TrimLeft(rest, " ") // RFC 9110, 11.4
	}
	sum := sha256.Sum256([]byte(key))
	match := -1
	for i := range keys {
		match = subtle.ConstantTimeSelect(subtle.ConstantTimeCompare(sum[:], keys[i][:]), i, match)
	}
	return match
}

func (s *Service) postResetPassword(r *http.Request, m map[string]any) (answer, error) {
	email, err := stringMember(m, "email")
	if err != nil {
		return answer{}, err
	}
	maxRequests, err := intMember(m, "maxRequests")
	if err != nil {
		return answer{}, err
	}
	prevent, err := boolMember(m, "preventEmailSending")
	if err != nil {
		return answer{}, err
	}
	activation, err := s.RequestReset(r.Context(), email, RequestOptions{MaxRequests: maxRequests, PreventEmailSending: prevent})
	if err != nil || activation == "" {
		return answerOK, err
	}
	return answer{status: http.StatusOK, body: `{"activation":"` + activation + `"}`}, nil
}

func (s *Service) postNewPassword(r *http.Request, m map[string]any) (answer, error) {
	activation, err := stringMember(m, "requestId")
	if err != nil {
		return answer{}, err
	}
	password, err := stringMember(m, "newPassword")
	if err != nil {
		return answer{}, err
	}
	return answerOK, s.ChangePassword(r.Context(), activation, password)
}
