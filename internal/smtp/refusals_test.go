package smtp_test

import (
	"strings"
	"testing"

	"github.com/gopassreset/reset/internal/smtp"
	"github.com/gopassreset/reset/internal/smtptest"
)

// The same reply for several recipients in a row is the server's fault, whatever
// its code. The server is blamed once for each of them, and for a reply about
// recipients once for twice as many: messages that always get this reply must not
// hold up the others.
func TestRefusalsInARow(t *testing.T) {
	const (
		nobody = "550 5.1.1 nobody"
		full   = "552 5.2.2 full"
		denied = "554 5.7.1 relay access denied"
		closed = "421 4.7.0 too many messages"
		grey   = "450 4.2.0 greylisted"
	)
	type try struct {
		to, reply string // "": accepted
		want      smtp.Fault
	}
	for name, tries := range map[string][]try{
		"three recipients": {
			{"a", nobody, smtp.OfMessage}, {"b", nobody, smtp.OfMessage}, {"c", nobody, smtp.OfServer}, {"d", nobody, smtp.Passing},
			{"d", nobody, smtp.Passing}, {"a", nobody, smtp.Passing}, {"e", nobody, smtp.Passing}, {"f", nobody, smtp.OfServer},
			{"g", nobody, smtp.Passing}, {"h", "", 0}, {"a", nobody, smtp.OfMessage}, {"b", nobody, smtp.OfMessage}, {"c", nobody, smtp.OfServer},
		},
		"relaying": {
			{"a", denied, smtp.Passing}, {"b", denied, smtp.Passing}, {"b", denied, smtp.Passing}, {"c", denied, smtp.OfServer}, {"c", denied, smtp.Passing},
		},
		"one recipient":  {{"a", nobody, smtp.OfMessage}, {"a", nobody, smtp.OfMessage}, {"a", nobody, smtp.OfMessage}},
		"a success":      {{"a", nobody, smtp.OfMessage}, {"b", nobody, smtp.OfMessage}, {"c", "", 0}, {"d", nobody, smtp.OfMessage}},
		"another reply":  {{"a", nobody, smtp.OfMessage}, {"b", nobody, smtp.OfMessage}, {"c", full, smtp.OfMessage}, {"d", nobody, smtp.OfMessage}},
		"a passing one":  {{"a", nobody, smtp.OfMessage}, {"b", nobody, smtp.OfMessage}, {"x", grey, smtp.Passing}, {"c", nobody, smtp.OfServer}},
		"greylisted all": {{"a", grey, smtp.Passing}, {"b", grey, smtp.Passing}, {"c", grey, smtp.Passing}, {"d", grey, smtp.Passing}},
		"throttled":      {{"a", closed, smtp.OfServer}, {"a", closed, smtp.Passing}, {"b", closed, smtp.OfServer}, {"c", "", 0}, {"a", closed, smtp.OfServer}},
	} {
		t.Run(name, func(t *testing.T) {
			s := smtptest.New(t, smtptest.Script{On: map[string]smtptest.Action{"RCPT": func(c *smtptest.Conn) bool {
				to := c.Line()
				for _, try := range tries {
					if try.reply != "" && strings.Contains(to, "<"+try.to+"@") {
						return smtptest.Say(try.reply)(c)
					}
				}
				return smtptest.Say("250 ok")(c)
			}}})
			m := plainSender(t, s)
			for i, try := range tries {
				e := envelope()
				e.To = try.to + "@example.org"
				err := m.Send(t.Context(), m.Server, e)
				if try.reply == "" && err != nil || try.reply != "" && faultOf(err) != try.want {
					t.Errorf("%d. %s: error %v of fault %v, want fault %v", i+1, try.to, err, faultOf(err), try.want)
				}
			}
		})
	}
}
