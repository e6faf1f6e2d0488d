package reset_test

import (
	"net/url"
	"strings"
	"testing"

	"github.com/gopassreset/reset"
)

// The queries that a link arrives with, for an activation ID whose parts are LEFT
// and RIGHT (in place of the middle of a line).
func TestLinkActivation(t *testing.T) {
	const id = "yQ3c0vTrS-4k9ZpX_1aBwGhE"
	const other = "Tm5hcyBzb21lIG90aGVyIGlk"
	for _, tt := range []struct {
		kind    string
		queries []string // with ID for the activation, LEFT and RIGHT for its halves
	}{
		{"as it was sent", []string{"activation=ID"}},
		{"punctuation behind it", []string{
			"activation=ID.", "activation=ID,", "activation=ID;", "activation=ID:", "activation=ID!", "activation=ID?", "activation=ID)",
			"activation=ID).", "activation=ID]", "activation=ID}", "activation=ID>", "activation=ID%3E", "activation=ID\"", "activation=ID%22", "activation=ID'",
			"activation=ID*", "activation=ID**", "activation=ID`", "activation=ID|", "activation=ID/", "activation=ID%2F", "activation=ID\\", "activation=ID%5C", "activation=ID=",
			"activation=ID%", "activation=ID%2", "activation=ID...", "activation=ID%E2%80%A6", "activation=ID%C2%BB", "activation=ID%E2%80%9D", "activation=ID%E3%80%82",
		}},
		{"markup behind it", []string{"activation=ID_", "activation=ID__", "activation=ID-", "activation=ID--", "activation=ID-_."}},
		{"words behind it", []string{"activation=ID%20Note", "activation=ID+Note", "activation=ID%0D%0AThe%20link%20is%20valid", "activation=ID<br>", "activation=ID%3C/a%3E"}},
		{"blanks around it", []string{
			"activation=%20ID", "activation=ID%20", "activation=+ID+", "activation=%0AID%0D%0A", "activation=%09ID", "activation=%C2%A0ID%C2%A0", "activation=%E3%80%80ID", "activation%20=%20ID",
		}},
		{"marks around it", []string{"activation=<ID>", "activation=%3CID%3E", "activation=%22ID%22", "activation='ID'", "activation=(ID)", "activation=*ID*", "activation=[ID](x", "activation==ID", "activation=:ID"}},
		{"invisible characters", []string{
			"activation=ID%E2%80%8B", "activation=%E2%80%8BID", "activation=LEFT%E2%80%8BRIGHT", "activation=LEFT%C2%ADRIGHT", "activation=%EF%BB%BFID", "activation=LEFT%E2%81%A0RIGHT", "activation=%E2%80%AAID%E2%80%AC", "activation=ID%EF%B8%8F",
		}},
		{"line breaks in it", []string{
			"activation=LEFT%0D%0ARIGHT", "activation=LEFT%0ARIGHT", "activation=LEFT%20RIGHT", "activation=LEFT+RIGHT", "activation=LEFT%20%20%20RIGHT", "activation=LEFT%0D%0A%09RIGHT", "activation=LEFT%0A%3E%20RIGHT", "activation=LEFT%0A%3E%3E%20RIGHT.", "activation=LEFT&#10;RIGHT", "activation=LEFT%C2%A0RIGHT",
		}},
		{"typographic hyphens", []string{"activation=yQ3c0vTrS%E2%80%914k9ZpX_1aBwGhE", "activation=yQ3c0vTrS%E2%80%904k9ZpX_1aBwGhE"}},
		{"quoted-printable", []string{
			"activation=3DID", "activation=3dID", "activation=3DLEFT=RIGHT", "activation=3DLEFT=%0D%0ARIGHT", "activation=LEFT=%0ARIGHT", "activ=ation=3DID", "activ=%0D%0Aation=3DID", "activation=3DID=2E", "activation=3DID=",
		}},
		{"encoded once more", []string{"activation%3DID", "activation%3dID", "activation%253DID", "%61ctivation=ID", "activation=ID%252E", "activation&#61;ID", "activation&#x3D;ID", "activation&equals;ID"}},
		{"HTML", []string{"amp;activation=ID", "utm_source=x&amp;activation=ID", "utm_source=x&amp;amp;activation=ID", "activation=ID&amp;utm_source=x", "activation=ID&quot;", "activation=ID&gt;", "activation=ID&nbsp;", "activation=ID&lt;br&gt;"}},
		{"further parameters", []string{
			"activation=ID&utm_source=x", "utm_source=x&activation=ID", "activation=ID?utm_source=x", "activation=ID%3Futm_source=x", "activation=ID%26utm_source=x", "activation=ID;utm_source=x",
			"fbclid=IwAR0abcdefghijklmnopqrs&activation=ID", "activation=ID&fbclid=IwAR0-_bcdefghijklmnopqrstuvwxyz", "gclid=Cj0K&activation=ID", "mc_cid=1&mc_eid=2&activation=ID", "activation=ID&_hsmi=1&_hsenc=p2ANqtz-",
			"activation=ID#reset", "activation=ID%23", "utm_campaign=account-activation-mail-01&activation=ID", "utm_campaign=activation&activation=ID",
		}},
		{"doubled", []string{"activation=ID?activation=ID", "activation=ID&activation=ID", "?activation=ID", "activation=activation=ID", "activation=LEFT&activation=ID"}},
		{"another case", []string{"Activation=ID", "ACTIVATION=ID", "aCTIVATION=ID", "Activation%3DID"}},
	} {
		for _, query := range tt.queries {
			query = strings.NewReplacer("ID", id, "LEFT", id[:11], "RIGHT", id[11:]).Replace(query)
			if got, found := reset.LinkActivation(query); got != id || !found {
				t.Errorf("%s: %s: got %q, %v", tt.kind, query, got, found)
			}
		}
	}

	// What is cut or could mean two is refused.
	for _, query := range []string{
		"activation", "activation=", "activation&x=" + id, "activation=" + id[1:], "activation=" + id[:23], "activation=x" + id, "activation=" + id + "Note", "activation=" + id + "-Note",
		"activation=" + id + "&activation=" + other, "activation=" + id + "?activation=" + other, "activation=" + id + "%26activation%3D" + other,
		"activation=4D" + id, "activation=" + id[:10] + "&" + id[10:], "activation=" + id[:10] + "." + id[10:], "activation=" + strings.Repeat("A", 10_000),
		"activation=" + id[:20] + "é" + id[20:],
	} {
		if got, found := reset.LinkActivation(query); got != "" || !found {
			t.Errorf("%.80s: got %q, %v; want none", query, got, found)
		}
	}

	// What names no activation is not a link's.
	for _, query := range []string{"", id, "x=" + id, "reactivation=" + id, "activations=" + id, "utm_campaign=activation-mail", "token=" + id, strings.Repeat("x", 5000) + "&activation=" + id} {
		if got, found := reset.LinkActivation(query); got != "" || found {
			t.Errorf("%.80s: got %q, %v; want nothing found", query, got, found)
		}
	}
}

// FuzzLinkActivation checks that whatever is found has the form of an
// activation, and that each activation survives being sent.
func FuzzLinkActivation(f *testing.F) {
	for _, query := range []string{"activation=yQ3c0vTrS-4k9ZpX_1aBwGhE", "activation=3D%0A&amp;activation%3D", "%61\xff&#x3D;=?", "activ=ation=3Dx"} {
		f.Add(query)
	}
	f.Fuzz(func(t *testing.T, query string) {
		got, found := reset.LinkActivation(query)
		if got != "" && (!found || len(got) != 24 || strings.Trim(got, alphabet) != "") {
			t.Errorf("%q: got %q, %v", query, got, found)
		}
		if got == "" {
			return
		}
		if again, _ := reset.LinkActivation("activation=" + url.QueryEscape(got)); again != got {
			t.Errorf("%q: got %q, and then %q", query, got, again)
		}
	})
}

// What a stranger's query costs, also one that names the activation hundreds of
// times.
func BenchmarkLinkActivation(b *testing.B) {
	for name, query := range map[string]string{
		"once":         "activation=A+" + strings.Repeat("utm_source=newsletter+", 240),
		"400 times":    strings.Repeat("activation=A+", 400),
		"undamaged":    "activation=AbCdEfGhIjKlMnOpQrStUvWx",
		"not there":    strings.Repeat("utm_source=newsletter&", 240),
		"broken lines": "activation=" + strings.Repeat("=\r\n", 1000),
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				reset.LinkActivation(query)
			}
		})
	}
}
