package main

import (
	"bytes"
	"cmp"
	"context"
	"net/http"
	"slices"

	"github.com/gopassreset/reset"
)

// mailsShown is how many mails the start page shows.
const mailsShown = 6

// panels are what the start page shows of what the library does. They are for
// demonstrations only: anyone who can read other people's mail can take over
// their accounts.
type panels struct {
	Sessions []session
	Mails    []reset.Message // the latest first
	Events   []event         // the latest first
	Tables   []table
}

func (h *host) home(w http.ResponseWriter, r *http.Request, v visitor) error {
	shown, err := h.panels(r.Context(), v)
	if err != nil {
		return err
	}
	return h.show(w, http.StatusOK, "home", view{
		Title: "Harbour", Visitor: v, Accounts: demoUsers, Password: demoPassword, Panels: shown,
	})
}

// demoPanels answers with the panels alone, for the script that renews them.
func (h *host) demoPanels(w http.ResponseWriter, r *http.Request, v visitor) error {
	shown, err := h.panels(r.Context(), v)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if err := templates["home"].ExecuteTemplate(&b, "panels", view{Visitor: v, Demo: true, Panels: shown}); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = b.WriteTo(w)
	return nil
}

func (h *host) panels(ctx context.Context, v visitor) (p panels, err error) {
	if v.User.ID != "" {
		if p.Sessions, err = sessionsOf(ctx, h.db, v.User.ID); err != nil {
			return panels{}, err
		}
	}
	if h.mailbox == nil {
		return p, nil
	}
	p.Mails = h.mailbox.Messages()
	slices.Reverse(p.Mails)
	p.Mails = p.Mails[:min(len(p.Mails), mailsShown)]
	p.Events = h.events.latest()
	p.Tables, err = readTables(ctx, h.db.DB)
	return p, err
}

// demoMail shows one part of a mail, within a frame of the start page.
func (h *host) demoMail(w http.ResponseWriter, r *http.Request) {
	mails := h.mailbox.Messages()
	id := r.FormValue("id")
	i := slices.IndexFunc(mails, func(m reset.Message) bool { return m.ID == id })
	if i < 0 {
		http.NotFound(w, r)
		return
	}
	header := w.Header()
	header.Set("Referrer-Policy", "no-referrer")
	// Styles and links that open elsewhere are all that a mail may have. The
	// start page's script may see how high it is; the mail runs none.
	header.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; "+
		"frame-ancestors 'self'; sandbox allow-same-origin allow-popups allow-popups-to-escape-sandbox")
	switch cmp.Or(r.FormValue("part"), "html") {
	case "html":
		header.Set("Content-Type", "text/html; charset=utf-8")
		_, _ = w.Write([]byte(`<base target="_blank">` + mails[i].HTML))
	case "source":
		raw, err := rawMessage(r.Context(), mails[i])
		if err != nil {
			h.log.Error("source of a mail", "error", err)
			http.Error(w, "The source can't be shown.", http.StatusInternalServerError)
			return
		}
		header.Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = w.Write(raw)
	default:
		http.NotFound(w, r)
	}
}
