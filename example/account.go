package main

import (
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/gopassreset/reset"
)

var clientIP = reset.ClientIPBehind() // behind a proxy: with its address

func (h *host) loginForm(w http.ResponseWriter, _ *http.Request, v visitor) error {
	return h.show(w, http.StatusOK, "login", view{Title: "Sign in", Visitor: v})
}

func (h *host) login(w http.ResponseWriter, r *http.Request, v visitor) error {
	email := strings.TrimSpace(r.PostFormValue("email"))
	again := view{Title: "Sign in", Visitor: v, Email: email}
	if wait, err := h.tooMany(r, email); err != nil {
		return err
	} else if wait > 0 {
		return h.showTooMany(w, "login", again, wait)
	}
	cookie, err := h.users.logIn(r.Context(), email, r.PostFormValue("password"), r.UserAgent())
	if errors.Is(err, errWrongLogin) {
		again.Problem = "The address or the password is wrong."
		return h.show(w, http.StatusForbidden, "login", again)
	}
	if err != nil {
		return fmt.Errorf("log in: %w", err)
	}
	return h.enter(w, r, v, cookie)
}

// enter replaces the browser's session, if it has one, by a new one.
func (h *host) enter(w http.ResponseWriter, r *http.Request, v visitor, cookie string) error {
	if v.Session.Hash != "" {
		if err := endSession(r.Context(), h.db, v.Session.UserID, v.Session.Hash); err != nil {
			return err
		}
	}
	h.keep(w, cookie)
	http.Redirect(w, r, "/", http.StatusSeeOther)
	return nil
}

// tooMany returns how long the client has to wait for another try at email.
func (h *host) tooMany(r *http.Request, email string) (wait time.Duration, err error) {
	if address, err := reset.CanonicalAddress(email); err == nil {
		email = address
	} else {
		email = "" // none has an account: they share a limit
	}
	var limit *reset.LimitError
	err = h.attempts.Allow(r.Context(), clientIP(r)+" "+email, time.Now())
	if errors.As(err, &limit) {
		return limit.RetryAfter, nil
	}
	return 0, err
}

func (h *host) showTooMany(w http.ResponseWriter, name string, v view, wait time.Duration) error {
	seconds := int(math.Ceil(wait.Seconds()))
	w.Header().Set("Retry-After", strconv.Itoa(seconds))
	v.Problem = fmt.Sprintf("Too many attempts. Please wait %d seconds.", seconds)
	return h.show(w, http.StatusTooManyRequests, name, v)
}

func (h *host) signupForm(w http.ResponseWriter, _ *http.Request, v visitor) error {
	return h.show(w, http.StatusOK, "signup", view{Title: "Create account", Visitor: v})
}

func (h *host) signup(w http.ResponseWriter, r *http.Request, v visitor) error {
	email, password := strings.TrimSpace(r.PostFormValue("email")), r.PostFormValue("password")
	again := view{Title: "Create account", Visitor: v, Email: email, Name: r.PostFormValue("name")}
	if wait, err := h.tooMany(r, ""); err != nil {
		return err
	} else if wait > 0 {
		return h.showTooMany(w, "signup", again, wait)
	}
	var refused *refusal
	err := h.users.signUp(r.Context(), again.Name, email, password)
	if errors.As(err, &refused) {
		again.Problem = refused.reason
		return h.show(w, http.StatusBadRequest, "signup", again)
	}
	if errors.Is(err, errTaken) {
		again.Problem = "This address has an account already."
		return h.show(w, http.StatusConflict, "signup", again)
	}
	if err != nil {
		return fmt.Errorf("sign up: %w", err)
	}
	cookie, err := h.users.logIn(r.Context(), email, password, r.UserAgent())
	if err != nil {
		return fmt.Errorf("log in: %w", err)
	}
	return h.enter(w, r, v, cookie)
}

func (h *host) logout(w http.ResponseWriter, r *http.Request, v visitor) error {
	if err := endSession(r.Context(), h.db, v.Session.UserID, v.Session.Hash); err != nil {
		return fmt.Errorf("log out: %w", err)
	}
	h.keep(w, "")
	http.Redirect(w, r, "/", http.StatusSeeOther)
	return nil
}

func (h *host) sessions(w http.ResponseWriter, r *http.Request, v visitor) error {
	all, err := sessionsOf(r.Context(), h.db, v.User.ID)
	if err != nil {
		return fmt.Errorf("sessions: %w", err)
	}
	return h.show(w, http.StatusOK, "sessions", view{Title: "Your sessions", Visitor: v, Sessions: all})
}

func (h *host) endSession(w http.ResponseWriter, r *http.Request, v visitor) error {
	hash := printable(r.PostFormValue("session"), 64)
	if err := endSession(r.Context(), h.db, v.User.ID, hash); err != nil {
		return fmt.Errorf("end session: %w", err)
	}
	http.Redirect(w, r, "/sessions", http.StatusSeeOther)
	return nil
}

func (h *host) passwordForm(w http.ResponseWriter, _ *http.Request, v visitor) error {
	return h.show(w, http.StatusOK, "password", view{Title: "Change your password", Visitor: v})
}

// password changes the password of somebody who knows the old one. The library
// is called, since links that were mailed before must not work any longer.
func (h *host) password(w http.ResponseWriter, r *http.Request, v visitor) error {
	again := view{Title: "Change your password", Visitor: v}
	if wait, err := h.tooMany(r, v.User.Email); err != nil {
		return err
	} else if wait > 0 {
		return h.showTooMany(w, "password", again, wait)
	}
	err := h.users.changePassword(r.Context(), v.Session, r.PostFormValue("old"), r.PostFormValue("password"), h.service.Revoke)
	status := http.StatusOK
	var refused *refusal
	switch {
	case err == nil:
		again.Done = true
	case errors.As(err, &refused):
		status, again.Problem = http.StatusBadRequest, refused.reason
	case errors.Is(err, errWrongLogin):
		status, again.Problem = http.StatusForbidden, "The old password is wrong."
	default:
		return fmt.Errorf("change password: %w", err)
	}
	return h.show(w, status, "password", again)
}
