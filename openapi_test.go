package reset_test

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"reflect"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gopassreset/reset"
)

// The part of an OpenAPI document that the tests read, without references.
type (
	openAPI struct {
		Paths map[string]map[string]json.RawMessage
	}
	operation struct {
		Parameters []struct {
			Name, In string
			media
		}
		RequestBody struct{ Content map[string]media }
		Responses   map[string]struct {
			Headers map[string]media
			Content map[string]media
		}
	}
	media struct {
		Schema   map[string]any
		Examples map[string]struct{ Value any }
	}
)

var methods = []string{"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}

// operations returns those of docs/openapi.json, by method and path.
func operations(t *testing.T) map[string]operation {
	t.Helper()
	text, err := os.ReadFile("docs/openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	var tree any
	if err := json.Unmarshal(text, &tree); err != nil {
		t.Fatal(err)
	}
	text, err = json.Marshal(withoutRefs(t, tree, tree))
	if err != nil {
		t.Fatal(err)
	}
	var doc openAPI
	if err := json.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	all := make(map[string]operation)
	for path, item := range doc.Paths {
		for _, method := range methods {
			if raw, ok := item[strings.ToLower(method)]; ok {
				var o operation
				if err := json.Unmarshal(raw, &o); err != nil {
					t.Fatalf("%s %s: %v", method, path, err)
				}
				all[method+" "+path] = o
			}
		}
	}
	return all
}

// withoutRefs replaces each reference in a tree by what it leads to.
func withoutRefs(t *testing.T, root, tree any) any {
	t.Helper()
	switch tree := tree.(type) {
	case []any:
		for i := range tree {
			tree[i] = withoutRefs(t, root, tree[i])
		}
	case map[string]any:
		ref, ok := tree["$ref"].(string)
		if !ok {
			for name := range tree {
				tree[name] = withoutRefs(t, root, tree[name])
			}
			return tree
		}
		target := root
		for part := range strings.SplitSeq(strings.TrimPrefix(ref, "#/"), "/") {
			object, _ := target.(map[string]any)
			target = object[part]
		}
		if target == nil {
			t.Fatalf("%s leads nowhere", ref)
		}
		return withoutRefs(t, root, target)
	}
	return tree
}

// docs/openapi.json has every route of the handlers, and they know no other.
func TestOpenAPIRoutes(t *testing.T) {
	documented := operations(t)
	f := newFixture(t, newHost(), nil)
	for _, route := range f.Routes() {
		if _, ok := documented[route]; !ok && route != "GET " { // the same as GET /
			t.Errorf("docs/openapi.json lacks %s", route)
		}
	}
	paths := make(map[string][]string) // methods by path
	for o := range documented {
		method, path, _ := strings.Cut(o, " ")
		paths[path] = append(paths[path], method)
	}
	for path, documented := range paths {
		for _, method := range methods {
			w := f.serve(httptest.NewRequest(method, baseURL+path, nil))
			allowed := w.Code != http.StatusNotFound && w.Code != http.StatusMethodNotAllowed
			if method != "OPTIONS" && allowed != slices.Contains(documented, method) {
				t.Errorf("%s %s: got %d; documented: %v", method, path, w.Code, documented)
			}
		}
	}
}

// serve answers a request below BaseURL by the handler that it is for.
func (f *fixture) serve(r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	if path := strings.TrimPrefix(r.URL.Path, "/account"); strings.HasPrefix(path, "/v1/") {
		r.URL.Path = path
		f.Handler().ServeHTTP(w, r)
	} else {
		f.Pages().ServeHTTP(w, r)
	}
	return w
}

// Each example of a response in docs/openapi.json is what the handlers answer
// to the example of the request that has its name, and fits its schema.
func TestOpenAPIExamples(t *testing.T) {
	for route, o := range operations(t) {
		for _, p := range o.Parameters {
			p.check(t, route+" "+p.Name)
		}
		for kind, m := range o.RequestBody.Content {
			m.check(t, route+" "+kind)
		}
		for status, response := range o.Responses {
			names := make(map[string]string) // media types by the names of examples
			for name, m := range response.Headers {
				m.check(t, route+" "+name)
				for example := range m.Examples {
					names[example] = ""
				}
			}
			for kind, m := range response.Content {
				m.check(t, route+" "+status+" "+kind)
				for example := range m.Examples {
					names[example] = kind
				}
			}
			if len(names) == 0 {
				t.Errorf("%s: %s has no example", route, status)
			}
			for name, kind := range names {
				t.Run(route+" "+status+" "+name, func(t *testing.T) {
					inBubble(t, func(c *reset.Config) { c.AllowedOrigins = []string{"https://spa.example.com"} }, func(t *testing.T, f *fixture) {
						got := f.answerTo(route, o, name, kind)
						if strconv.Itoa(got.status) != status || got.kind != kind {
							t.Fatalf("got %d %s, want %s %s\n%s", got.status, got.kind, status, kind, got.body)
						}
						for field, m := range response.Headers {
							if want, ok := m.Examples[name]; ok && got.header.Get(field) != fmt.Sprint(want.Value) {
								t.Errorf("got %s: %s, want %v", field, got.header.Get(field), want.Value)
							}
						}
						want := response.Content[kind].Examples[name].Value
						switch kind {
						case "application/json":
							var value any
							if err := json.Unmarshal([]byte(got.body), &value); err != nil || !reflect.DeepEqual(value, want) {
								t.Errorf("got %s, want %v", got.body, want)
							}
						case "text/html":
							if !strings.Contains(got.body, want.(string)) {
								t.Errorf("got\n%s\nwithout %s", got.body, want)
							}
						}
					})
				})
			}
		}
	}
}

// shownActivation is the live one in the examples.
const shownActivation = "hrWrkI989WDC0JoZfIIBiXfX"

func checkOf(activation string) string {
	sum := sha256.Sum256([]byte(activation))
	return base64.RawURLEncoding.EncodeToString(sum[:])[:12]
}

// deviations make a request differ from its examples, or the service from a new
// one. Their names are those of examples, without "Form".
var deviations = map[string]struct {
	service func(f *fixture, send func() int)
	request func(r *http.Request, body *string)
}{
	"noKey":    {request: func(r *http.Request, _ *string) { r.Header.Del("Authorization") }},
	"noCookie": {request: func(r *http.Request, _ *string) { r.Header.Del("Cookie") }},
	"notJSON":  {request: func(r *http.Request, _ *string) { r.Header.Set("Content-Type", "text/plain") }},
	"appNotJSON": {request: func(r *http.Request, _ *string) {
		r.Header.Set("Content-Type", "text/plain")
		r.Header.Set("Origin", "https://spa.example.com")
	}},
	"tooLarge": {request: func(_ *http.Request, body *string) { *body += strings.Repeat(" ", 16<<10) }},
	"failed": {service: func(f *fixture, _ func() int) {
		f.store.Before = func(context.Context, string) error { return errors.New("the database is down") }
	}},
	"panic": {service: func(f *fixture, _ func() int) {
		f.store.Before = func(context.Context, string) error { panic("a bug") }
	}},
	"tooMany": {service: func(f *fixture, send func() int) {
		for n := 0; send() != http.StatusTooManyRequests; n++ {
			if n == 100 {
				f.t.Fatal("100 requests were not too many")
			}
		}
	}},
	"busy": {service: func(f *fixture, _ func() int) {
		f.host.onHash = func(context.Context, string) error { time.Sleep(6 * time.Second); return nil }
		var holding sync.WaitGroup
		for range runtime.GOMAXPROCS(0) {
			activation := f.request(bob.Email)
			holding.Go(func() { f.ChangePassword(f.t.Context(), activation, goodPassword) })
		}
		synctest.Wait()
		f.t.(*testing.T).Cleanup(holding.Wait)
	}},
}

// A shown answer has the activation of the examples.
type shownAnswer struct {
	status     int
	header     http.Header
	kind, body string
}

// answerTo sends the request of an example whose answer has a media type.
func (f *fixture) answerTo(route string, o operation, name, kind string) shownAnswer {
	activation, err := f.RequestReset(f.t.Context(), ann.Email, reset.RequestOptions{PreventEmailSending: true})
	if err != nil {
		f.t.Fatal(err)
	}
	real := strings.NewReplacer(shownActivation, activation, checkOf(shownActivation), checkOf(activation))
	fallback, bodyKind := "page", "application/x-www-form-urlencoded"
	if kind == "application/json" {
		fallback = "ok"
	}
	if _, ok := o.RequestBody.Content[bodyKind]; fallback == "ok" || !ok {
		bodyKind = "application/json"
	}
	deviation := deviations[strings.TrimSuffix(name, "Form")]
	send := func() *httptest.ResponseRecorder {
		method, path, _ := strings.Cut(route, " ")
		body := real.Replace(encode(f.t, bodyKind, o.RequestBody.Content[bodyKind].example(name, fallback)))
		r := httptest.NewRequestWithContext(f.t.Context(), method, baseURL+path, nil)
		r.Header.Set("Content-Type", bodyKind)
		if strings.HasPrefix(path, "/v1/") {
			r.Header.Set("Authorization", apiKey)
		}
		for _, p := range o.Parameters {
			value, ok := p.example(name, fallback).(string)
			value = real.Replace(value)
			switch {
			case !ok:
			case p.In == "header":
				r.Header.Set(p.Name, value)
			case p.In == "cookie":
				r.AddCookie(&http.Cookie{Name: p.Name, Value: value})
			case p.In == "query":
				r.URL.RawQuery = url.Values{p.Name: {value}}.Encode()
			}
		}
		if deviation.request != nil {
			deviation.request(r, &body)
		}
		r.Body, r.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
		return f.serve(r)
	}
	if deviation.service != nil {
		deviation.service(f, func() int { return send().Code })
	}
	w := send()
	kind, _, _ = strings.Cut(w.Header().Get("Content-Type"), ";")
	shown := strings.ReplaceAll(w.Body.String(), activation, shownActivation)
	if route == "POST "+resetPath { // which has minted another one
		shown = mintedActivation.ReplaceAllString(shown, `"activation":"`+shownActivation+`"`)
	}
	return shownAnswer{w.Code, w.Header(), kind, shown}
}

var mintedActivation = regexp.MustCompile(`"activation":"[\w-]{24}"`)

// encode returns a body as a form or as JSON, or "" for none.
func encode(t testing.TB, kind string, value any) string {
	t.Helper()
	object, ok := value.(map[string]any)
	switch {
	case !ok:
		return ""
	case kind == "application/json":
		text, err := json.Marshal(object)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	form := make(url.Values)
	for name, v := range object {
		form.Set(name, v.(string))
	}
	return form.Encode()
}

// example returns the value of an example, or of another one, or nil.
func (m media) example(name, fallback string) any {
	if e, ok := m.Examples[name]; ok {
		return e.Value
	}
	return m.Examples[fallback].Value
}

// check compares the examples with the schema.
func (m media) check(t *testing.T, what string) {
	t.Helper()
	for name, e := range m.Examples {
		if err := fits(e.Value, m.Schema); err != nil {
			t.Errorf("%s: example %s: %v", what, name, err)
		}
	}
}

// fits compares a value with the keywords of JSON Schema that the document uses.
// An object has no other members than those of its properties.
func fits(value any, schema map[string]any) error {
	object, isObject := value.(map[string]any)
	number, _ := value.(float64)
	text, _ := value.(string)
	for keyword, argument := range schema {
		ok := true
		switch keyword {
		case "description", "default":
		case "type":
			is := map[bool]string{true: "object"}[isObject]
			switch value.(type) {
			case string:
				is = "string"
			case bool:
				is = "boolean"
			case float64:
				is = "integer"
			}
			ok = is == argument
		case "const":
			ok = value == argument
		case "enum":
			ok = slices.Contains(argument.([]any), value)
		case "minimum":
			ok = number >= argument.(float64)
		case "maximum":
			ok = number <= argument.(float64)
		case "pattern":
			ok = regexp.MustCompile(argument.(string)).MatchString(text)
		case "required":
			for _, name := range argument.([]any) {
				_, has := object[name.(string)]
				ok = ok && has
			}
		case "properties":
			properties := argument.(map[string]any)
			for name, member := range object {
				property, known := properties[name].(map[string]any)
				if !known {
					return fmt.Errorf("the schema lacks %s", name)
				}
				if err := fits(member, property); err != nil {
					return fmt.Errorf("%s: %w", name, err)
				}
			}
		case "anyOf":
			ok = slices.ContainsFunc(argument.([]any), func(s any) bool { return fits(value, s.(map[string]any)) == nil })
		default:
			return fmt.Errorf("unknown keyword %s", keyword)
		}
		if !ok {
			return fmt.Errorf("%v is not %s %v", value, keyword, argument)
		}
	}
	return nil
}
