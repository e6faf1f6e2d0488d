package reset

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"maps"
	"math"
	"mime"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"
)

const (
	maxBody         = 16 << 10 // bytes
	handlerDeadline = 10 * time.Second
	retryWhenBusy   = "5" // seconds
)

// An answer is one literal response in JSON.
type answer struct {
	status int
	body   string
	reason string // for the header Reset-Reason of a 400, 413 or 415
}

// because returns the answer with the reason that an error has.
func (a answer) because(err error) answer {
	a.reason = reasonOf(err)
	return a
}

// reasonWord matches what a host may choose for PasswordError.Reason and a
// header can carry.
var reasonWord = regexp.MustCompile(`^[0-9A-Za-z_.-]{1,64}$`)

func reasonOf(err error) string {
	var password *PasswordError
	var bad *badRequestError
	switch {
	case errors.As(err, &password) && reasonWord.MatchString(password.Reason):
		return password.Reason
	case errors.As(err, &password):
		return "password"
	case errors.As(err, &bad):
		return bad.reason
	case errors.Is(err, ErrInvalidActivation):
		return "invalid_activation"
	}
	return "body"
}

// The literal answers, misspellings included: clients may compare them.
var (
	answerOK               = answer{status: http.StatusOK, body: `{"message":"ok"}`}
	answerBadRequest       = answer{status: http.StatusBadRequest, body: `{"error":"BAD_REQUEST","message":"One or more body params are invalid."}`}
	answerTooLarge         = answer{status: http.StatusRequestEntityTooLarge, body: answerBadRequest.body, reason: "too_large"}
	answerUnsupported      = answer{status: http.StatusUnsupportedMediaType, body: answerBadRequest.body, reason: "content_type"}
	answerUnauthorized     = answer{status: http.StatusUnauthorized, body: `{"error":"UNAUTHORIZED","message":"The API key is missing or invalid."}`}
	answerForbidden        = answer{status: http.StatusForbidden, body: `{"error":"FORBIDDEN","message":"Browsers may not call this endpoint."}`}
	answerNotFound         = answer{status: http.StatusNotFound, body: `{"error":"NOT_FOUND","message":"Not found."}`}
	answerMethodNotAllowed = answer{status: http.StatusMethodNotAllowed, body: `{"error":"METHOD_NOT_ALLOWED","message":"Use POST."}`}
	answerTooMany          = answer{status: http.StatusTooManyRequests, body: `{"error":"TOO_MANY_REQUESTS","message":"It seems that you send too much requests. Please check your inbox to reset your pasword."}`}
	answerUnknown          = answer{status: http.StatusInternalServerError, body: `{"error":"UNKNOWN_ERROR","message":"An unknown error has occured."}`}
	answerUnavailable      = answer{status: http.StatusServiceUnavailable, body: answerUnknown.body}
)

func (a answer) write(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Content-Type", "application/json; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Length", strconv.Itoa(len(a.body)))
	if a.reason != "" {
		h.Set("Reset-Reason", a.reason)
	}
	w.WriteHeader(a.status)
	io.WriteString(w, a.body)
}

// guard gives a handler its deadline and answers its panics with failed.
func (s *Service) guard(next, failed http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), handlerDeadline)
		defer cancel()
		r = r.WithContext(withCaller(ctx, func() (client string) {
			s.events.noPanic(ctx, func() error { client = s.cfg.ClientIP(r); return nil })
			return client
		}))
		if r.Body == nil { // of http.NewRequest
			r.Body = http.NoBody
		}
		tracked := &tracker{ResponseWriter: w}
		header := w.Header().Clone() // the host's, from around us
		if r.Body != http.NoBody {
			// Without this a client that sends byte by byte would hold the
			// handler, and net/http too, which reads what we do not. Not every
			// ResponseWriter can do it; the size is bounded all the same.
			http.NewResponseController(w).SetReadDeadline(time.Now().Add(handlerDeadline))
		}
		defer func() {
			p := recover()
			if p == nil {
				return
			}
			if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
				panic(p)
			}
			s.events.panicked(ctx, p)
			if !tracked.wrote {
				clear(w.Header())
				maps.Copy(w.Header(), header)
				failed(w, r)
			}
		}()
		next(tracked, r)
	})
}

// tracker remembers whether the response has begun.
type tracker struct {
	http.ResponseWriter
	wrote bool
}

func (t *tracker) WriteHeader(status int) {
	t.wrote = true
	t.ResponseWriter.WriteHeader(status)
}

func (t *tracker) Write(b []byte) (int, error) {
	t.wrote = true
	return t.ResponseWriter.Write(b)
}

// Unwrap is for http.ResponseController.
func (t *tracker) Unwrap() http.ResponseWriter { return t.ResponseWriter }

// A leaving is the ResponseWriter of a request that leaves the room when its
// response begins, which clients may read as slowly as they like.
type leaving struct {
	http.ResponseWriter
	leave func()
}

func (l leaving) WriteHeader(status int) {
	l.leave()
	l.ResponseWriter.WriteHeader(status)
}

// Unwrap is for http.ResponseController.
func (l leaving) Unwrap() http.ResponseWriter { return l.ResponseWriter }

// isJSON reports whether the body is JSON in UTF-8 and not compressed.
func isJSON(r *http.Request) bool {
	kind, params, err := mediaType(r)
	charset, ok := params["charset"]
	return err == nil && kind == "application/json" && (!ok || strings.EqualFold(charset, "utf-8"))
}

func mediaType(r *http.Request) (kind string, params map[string]string, err error) {
	values := r.Header.Values("Content-Type")
	if len(values) != 1 || len(r.Header.Values("Content-Encoding")) > 0 {
		return "", nil, errors.New("not one plain media type")
	}
	return mime.ParseMediaType(values[0])
}

// A jsonRoute answers for the members of a body.
type jsonRoute func(*http.Request, map[string]any) (answer, error)

// serveJSON reads the body and answers with what route makes of its members.
func (s *Service) serveJSON(w http.ResponseWriter, r *http.Request, route jsonRoute, whenBusy answer) {
	s.answerJSON(w, r, whenBusy, func() (answer, error) {
		body, err := readBody(w, r)
		if err != nil {
			return answer{}, err
		}
		m, err := members(body)
		if err != nil {
			return answer{}, &badRequestError{"body", err}
		}
		leave, err := s.waiting.enter()
		if err != nil {
			return answer{}, err
		}
		defer leave()
		return route(r, m)
	})
}

// answerJSON answers with a result, or with what its error stands for.
func (s *Service) answerJSON(w http.ResponseWriter, r *http.Request, whenBusy answer, result func() (answer, error)) {
	a, err := result()
	if err != nil {
		a = s.answerTo(r.Context(), w, err, whenBusy)
	}
	s.writeJSON(w, r, a)
}

// writeJSON writes an answer and logs its reason.
func (s *Service) writeJSON(w http.ResponseWriter, r *http.Request, a answer) {
	if a.reason != "" {
		s.events.log(r.Context(), badRequest, "reason", a.reason)
	}
	a.write(w)
}

// A bodyConsumedError is the host's fault: something before the handler has
// read the body.
type bodyConsumedError struct{ path string } // of the request

func (e *bodyConsumedError) Error() string { return "reset: the body was read before" }

// readBody reads a body of bounded size in bounded time.
func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	var body []byte
	var err error = &http.MaxBytesError{Limit: maxBody}
	if r.ContentLength <= maxBody {
		body, err = io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	}
	var tooLarge *http.MaxBytesError
	switch {
	case err == nil:
		http.NewResponseController(w).SetReadDeadline(time.Time{})
		if len(body) == 0 && r.ContentLength > 0 {
			return nil, &bodyConsumedError{r.URL.Path} // a route, so no secret
		}
		return body, nil
	case !errors.As(err, &tooLarge):
		err = &badRequestError{"body", err}
	}
	if r.ProtoMajor < 2 { // over HTTP/2 it would end the other streams
		w.Header().Set("Connection", "close") // nobody waits for the rest
	}
	return nil, err
}

// answerTo turns an error into an answer, and logs what the operator must know.
func (s *Service) answerTo(ctx context.Context, w http.ResponseWriter, err error, whenBusy answer) answer {
	var tooLarge *http.MaxBytesError
	var limit *LimitError
	var password *PasswordError
	switch {
	case errors.As(err, &tooLarge):
		return answerTooLarge
	case errors.Is(err, ErrBadRequest), errors.Is(err, ErrInvalidActivation), errors.As(err, &password):
		return answerBadRequest.because(err)
	case errors.As(err, &limit):
		w.Header().Set("Retry-After", strconv.Itoa(wholeSeconds(limit.RetryAfter)))
		return answerTooMany
	}
	kind := s.failure(ctx, err)
	if kind == hostMistake {
		return answerUnknown
	}
	if kind == busyHost || whenBusy.status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", retryWhenBusy)
	}
	return whenBusy
}

// A failureKind is what may become of a request that has failed when it is made
// again.
type failureKind int

const (
	hostMistake failureKind = iota // it fails again
	outage                         // it succeeds once somebody has mended something
	busyHost                       // it succeeds in some seconds
)

// failure logs an error that was answered with a 500 or 503, quietly where
// nobody waited for the answer.
func (s *Service) failure(ctx context.Context, err error) failureKind {
	operation := "serve"
	if w := (*wrapped)(nil); errors.As(err, &w) {
		operation = w.operation
	}
	var consumed *bodyConsumedError
	switch {
	case errors.As(err, &consumed):
		s.events.count(ctx, bodyConsumed, "path", consumed.path)
		return hostMistake
	case errors.Is(ctx.Err(), context.Canceled):
		s.events.logAt(ctx, slog.LevelDebug, requestFailed, "operation", operation, "error", err)
		return outage
	case errors.Is(err, ErrBusy), errors.Is(err, context.DeadlineExceeded), errors.Is(ctx.Err(), context.DeadlineExceeded):
		s.events.count(ctx, busy, "operation", operation, "error", err)
		return busyHost
	}
	s.events.count(ctx, requestFailed, "operation", operation, "error", err)
	if m := (*mistake)(nil); errors.As(err, &m) {
		return hostMistake
	}
	return outage
}

// A mistake is an error of how the host has set the Service up.
type mistake struct{ error }

func (m *mistake) Unwrap() error { return m.error }

// reportForeign reports a request from a page of another origin.
func (s *Service) reportForeign(r *http.Request) {
	s.events.count(r.Context(), foreignPost, append(callerAttrs(r.Context()),
		"origin", clip(r.Header.Get("Origin")), "base_url", s.cfg.BaseURL)...)
}

// wholeSeconds rounds up, to 1 at least.
func wholeSeconds(d time.Duration) int {
	return max(1, int(math.Ceil(d.Seconds())))
}
