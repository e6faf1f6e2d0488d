package reset

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// The errors that callers and implementers distinguish, with errors.Is.
var (
	// ErrBadRequest is returned by RequestReset, Forgot and CanonicalAddress
	// for input that can never succeed: a malformed address, MaxRequests out of
	// range, a missing client.
	ErrBadRequest = errors.New("reset: bad request")

	// ErrTooManyRequests is matched by every *LimitError.
	ErrTooManyRequests = errors.New("reset: too many requests")

	// ErrInvalidActivation is returned by ChangePassword, Store.Find and
	// Store.Redeem for an activation that is unknown, redeemed, expired or
	// revoked, or whose user is gone. Callers cannot distinguish these cases.
	ErrInvalidActivation = errors.New("reset: invalid activation")

	// ErrBusy is wrapped by the errors of RequestReset, Forgot, ChangePassword
	// and Revoke, and by a Store that has given up waiting for a lock, when the
	// host or its database has too much to do. In some seconds the same call may
	// succeed.
	ErrBusy = errors.New("reset: busy")

	// ErrNoUser is returned by Users where no account may be reset.
	ErrNoUser = errors.New("reset: no such user")

	// ErrManyUsers is returned by Users.FindByEmail when several accounts share
	// the address. It wraps ErrNoUser; no mail is sent and user_ambiguous is
	// logged.
	ErrManyUsers = fmt.Errorf("%w: several accounts share the address", ErrNoUser)

	// ErrNotChanged is wrapped by Users.SetPassword when the password certainly
	// is as it was. It matters where the users are not in the store's database:
	// any other error there leaves the user's activations redeemed.
	ErrNotChanged = errors.New("reset: password not changed")

	// ErrUndeliverable is wrapped by Mailer.Send when a message can never be
	// delivered. It is not retried.
	ErrUndeliverable = errors.New("reset: undeliverable")

	// ErrUnavailable is wrapped by Mailer.Send when any other message would fail
	// as well: the mail system is down, has enough for now, or refuses the
	// sender. Delivery pauses.
	ErrUnavailable = errors.New("reset: mail system unavailable")

	// ErrUnconfirmed is wrapped by Mailer.Send when the mail system got all of a
	// message and gave no answer. It is sent once more, much later.
	ErrUnconfirmed = errors.New("reset: mail unconfirmed")

	// ErrGone is returned by Store.Issue when the mail's lease is lost, or the
	// mail belongs to another user.
	ErrGone = errors.New("reset: lease lost")
)

// A LimitError is returned when a limit is reached. It matches
// ErrTooManyRequests.
type LimitError struct {
	// RetryAfter is how long to wait before the next attempt.
	RetryAfter time.Duration
	// Full is set when a limiter has no room for another key, so that the
	// caller is refused for others' requests.
	Full bool
}

func (e *LimitError) Error() string {
	return fmt.Sprintf("%v: retry after %v", ErrTooManyRequests, e.RetryAfter)
}

// Is reports whether target is ErrTooManyRequests.
func (e *LimitError) Is(target error) bool { return target == ErrTooManyRequests }

// wrap adds the operation that failed to an error. The text begins with one
// "reset: ", however often the error was wrapped before.
func wrap(operation string, err error) error { return &wrapped{operation, err} }

type wrapped struct {
	operation string
	err       error
}

func (e *wrapped) Error() string {
	return "reset: " + e.operation + ": " + strings.TrimPrefix(e.err.Error(), "reset: ")
}

func (e *wrapped) Unwrap() error { return e.err }

// A badRequestError is an ErrBadRequest that names what is at fault.
type badRequestError struct {
	reason string // a member of the request, or "body"
	err    error
}

func (e *badRequestError) Error() string {
	return wrap(e.reason, e.err).Error()
}

// Unwrap returns two errors, since err need not wrap ErrBadRequest.
func (e *badRequestError) Unwrap() []error { return []error{ErrBadRequest, e.err} }
