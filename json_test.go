package reset_test

import (
	"bytes"
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/gopassreset/reset"
	"github.com/gopassreset/reset/internal/figure"
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
		{`{"a":` + strings.Repeat("[", 7) + strings.Repeat("]", 7) + `}`, "a"},
		{strings.Repeat(`{"a":`, 8) + "1" + strings.Repeat(`}`, 8), "a"},
		{`{"a":` + strings.Repeat("[", 8) + strings.Repeat("]", 8) + `}`, ""},
		{strings.Repeat(`{"a":`, 9) + "1" + strings.Repeat(`}`, 9), ""},
		{strings.Repeat(`{"a":`, 3000), ""},
		{strings.Repeat("[", 10_000), ""},
		{`{"a":"\"\\\/\b\f\n\r\t\u00e9"}`, "a"}, {`{"a":"\x"}`, ""}, {`{"a":"\u12g4"}`, ""}, {`{"a":"\u123`, ""}, {`{"a":"\`, ""}, {`{"a":"\ud83d\u0041"}`, ""},
		{`{"a":-0,"b":0.50,"c":-1.5e+10,"d":1E-9}`, "a b c d"}, {`{"a":-}`, ""}, {`{"a":.5}`, ""}, {`{"a":1.}`, ""}, {`{"a":1e}`, ""}, {`{"a":0x1}`, ""},
		{`{"a":nul}`, ""}, {`{"a":nulll}`, ""}, {`{"a":True}`, ""}, {"{\"a\"\v:1}", ""}, {"{\"a\":1}\x00", ""},
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

// A value that no known member can have costs next to nothing, however large it
// is.
func TestMembersAllocations(t *testing.T) {
	for name, value := range map[string]string{
		"deep":    strings.Repeat("[", 16_000),
		"numbers": "[" + strings.Repeat("0,", 8000) + "0]",
		"strings": "[" + strings.Repeat(`"",`, 5000) + `""]`,
		"arrays":  "[" + strings.Repeat("[[]],", 3000) + "0]",
	} {
		body := []byte(`{"a":` + value + "}")
		got := testing.AllocsPerRun(10, func() { reset.Members(body) })
		if got > 10 {
			t.Errorf("%s: %v allocations", name, got)
		}
		if name == "deep" {
			figure.Report(t, "allocations for 16 KB of nested JSON", int(got), len(value))
		}
	}
}

// FuzzMembers checks that what is accepted is what encoding/json makes of it,
// and that what encoding/json writes is accepted.
func FuzzMembers(f *testing.F) {
	for _, s := range []string{
		`{"email":"a@b.c","maxRequests":3,"preventEmailSending":true}`, `{"a":[1,{"b":null}],"c":"\ud83d\ude00"}`,
		`{"a":1,"a":2}`, `{"a":"\ud800"}`, "\ufeff{}", `{"a":"\\\ufffd"}`, `{} {}`, `{"a":1e400}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		d := json.NewDecoder(bytes.NewReader(in))
		d.UseNumber()
		var want map[string]any
		err := d.Decode(&want)
		if got, membersErr := reset.Members(in); membersErr == nil {
			if err != nil || want == nil {
				t.Fatalf("%q is accepted, but encoding/json says %v", in, err)
			}
			sameMembers(t, in, got, want)
		}
		if err != nil || want == nil || depth(want) > 8 {
			return
		}
		written, err := json.Marshal(want)
		if err != nil || bytes.Contains(written, []byte(`\u0000`)) {
			return
		}
		got, err := reset.Members(written)
		if err != nil {
			t.Fatalf("%s is refused", written)
		}
		sameMembers(t, written, got, want)
	})
}

// depth returns how deep a value nests.
func depth(v any) (deepest int) {
	var parts []any
	switch v := v.(type) {
	case map[string]any:
		parts = slices.Collect(maps.Values(v))
	case []any:
		parts = v
	default:
		return 0
	}
	for _, part := range parts {
		deepest = max(deepest, depth(part))
	}
	return deepest + 1
}

func sameMembers(t *testing.T, in []byte, got, want map[string]any) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%q: %d members, want %d", in, len(got), len(want))
	}
	for name, v := range got {
		switch w := want[name].(type) {
		case nil, map[string]any, []any:
		default:
			if !reflect.DeepEqual(v, w) {
				t.Errorf("%q: member %q is %v, want %v", in, name, v, w)
			}
		}
	}
}
