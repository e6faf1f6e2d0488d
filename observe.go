package reset

import (
	"context"
	"errors"
)

// An Observation is called when an operation of the Service begins, and returns
// the context for the operation, such as one with a span, and a function that is
// called when the operation has ended. Both are called by many goroutines.
//
// operation is "trusted_request", "public_request", "redeem", "revoke", "lease",
// "send" (an attempt to send one mail), "settle" or "purge". outcome is "ok",
// "limited", "refused" or "failed"; a request, activation or password is refused
// that can never succeed, and a mail that is undeliverable. The outcome of a
// public request does not depend on whether the address has an account, but how
// often mail is sent does: show what is observed to operators only.
type Observation func(ctx context.Context, operation string) (_ context.Context, end func(outcome string))

// contained keeps a panic of an Observation, and of what it returns, from ending
// the operation or the process.
func (o Observation) contained(events eventLog) Observation {
	if o == nil {
		return nil
	}
	return func(ctx context.Context, operation string) (observed context.Context, end func(outcome string)) {
		observed, end = ctx, func(string) {}
		events.noPanic(ctx, func() error {
			c, e := o(ctx, operation)
			if c != nil {
				observed = c
			}
			end = func(outcome string) { events.noPanic(observed, func() error { e(outcome); return nil }) }
			return nil
		})
		return observed, end
	}
}

// run runs one operation.
func (o Observation) run(ctx context.Context, operation string, f func(context.Context) error) error {
	if o == nil {
		return f(ctx)
	}
	ctx, end := o(ctx, operation)
	outcome := "failed" // a panic, too
	defer func() { end(outcome) }()
	err := f(ctx)
	outcome = outcomeOf(err)
	return err
}

func outcomeOf(err error) string {
	var password *PasswordError
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, ErrTooManyRequests):
		return "limited"
	case errors.Is(err, ErrBadRequest), errors.Is(err, ErrInvalidActivation), errors.As(err, &password), errors.Is(err, ErrUndeliverable):
		return "refused"
	}
	return "failed"
}
