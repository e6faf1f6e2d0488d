package reset_test

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/gopassreset/reset"
)

func TestMembers(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want string // the members' names, or "" for an error
	}{
		{`{"a":"x","b":1,"c":true,"d":null,"e":[1,{"a":2}],"f":{"a":{}}}`, "a b c d e f"},
		{"\t{ \"a\" : 1 }\r\n", "a"},
		{`{"a":1,"A":2}`, "A a"},
		{`{"K":1,"\u212a":2}`, "K \u212a"}, // equal only after Unicode folding
		{`{"a":"\ufffd"}`, "a"},
		{"{\"a\":\"\uFFFD\\uFFFD\"}", "a"},
		{`{"a":"\ud83d\ude00"}`, "a"},
		{`{"a":"\\ud800"}`, "a"}, // a backslash, then text
		{`{"a":1e400}`, "a"},
		{`{"a":1,"a":2}`, ""},
		{`{"a":1,"\u0061":2}`, ""},
		{`{"b":{"a":1,"a":2}}`, ""},
		{`{"b":[{"a":1,"a":2}]}`, ""},
		{`{"a":"\ud800"}`, ""},
		{`{"a":"\udc00\ud800"}`, ""},
		{`{"a":"\ud800\ufffd"}`, ""},
		{"{\"a\":\"\\ud800\uFFFD\"}", ""},
		{`{"\ud800":1}`, ""},
		{`{"a":"\u0000"}`, ""},
		{`{"\u0000":1}`, ""},
		{"{\"a\":\"\x00\"}", ""},
		{"{\"a\":\"\xff\"}", ""},
		{"\ufeff{}", ""},
		{"\xfe\xff\x00{\x00}", ""},
		{`{}{}`, ""}, {`{} x`, ""}, {`{}]`, ""}, {``, ""}, {` `, ""}, {`null`, ""}, {`[]`, ""}, {`1`, ""}, {`"a"`, ""},
		{`{`, ""}, {`{"a"}`, ""}, {`{"a":}`, ""}, {`{"a":1,}`, ""}, {`{a:1}`, ""}, {`{'a':1}`, ""}, {`{"a":03}`, ""}, {`{"a":+1}`, ""}, {`{"a":NaN}`, ""},
		{`{"a":[1,]}`, ""}, {`{"a":[}`, ""}, {`{"a":[1}`, ""}, {`{"a":1 "b":2}`, ""}, {`{"a":tru}`, ""}, {"{\"a\":\"\n\"}", ""}, {`{"a":1}/**/`, ""},
		{strings.Repeat(`{"a":`, 3000), ""},
		{strings.Repeat("[", 10_000), ""},
	} {
		m, err := reset.Members([]byte(tt.in))
		got := strings.Join(slices.Sorted(maps.Keys(m)), " ")
		if got != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("%.60q: members %q, %v; want %q", tt.in, got, err, tt.want)
		}
	}
	if m, err := reset.Members([]byte(`{}`)); err != nil || len(m) != 0 {
		t.Errorf("{}: %v, %v", m, err)
	}
}

// FuzzMembers checks that what is accepted is what encoding/json makes of it,
// and that little else is refused.
func FuzzMembers(f *testing.F) {
	for _, s := range []string{
		`{"email":"a@b.c","maxRequests":3,"preventEmailSending":true}`, `{"a":[1,{"b":null}],"c":"\ud83d\ude00"}`,
		`{"a":1,"a":2}`, `{"a":"\ud800"}`, "\ufeff{}", `{"a":"\\\ufffd"}`, `{} {}`, `{"a":1e400}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		got, err := reset.Members(in)
		if err != nil {
			return
		}
		d := json.NewDecoder(strings.NewReader(string(in)))
		d.UseNumber()
		var want map[string]any
		if err := d.Decode(&want); err != nil || want == nil {
			t.Fatalf("%q is accepted, but encoding/json says %v", in, err)
		}
		if len(got) != len(want) {
			t.Fatalf("%q: %d members; want %d", in, len(got), len(want))
		}
		for name, v := range got {
			switch w := want[name].(type) {
			case map[string]any, []any:
			default:
				if !reflect.DeepEqual(v, w) {
					t.Errorf("%q: member %q is %v; want %v", in, name, v, w)
				}
			}
		}
	})
}
