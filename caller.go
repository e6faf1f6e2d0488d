package reset

import "context"

// A caller is who sent an HTTP request, as events name it. The methods of
// Service that have no parameter for it find it in their context.
type caller struct {
	client func() string // Config.ClientIP of the request
	key    int           // the index of the API key in Config.APIKeys, or -1
}

type callerKey struct{}

// withCaller returns a context for a request without an API key.
func withCaller(ctx context.Context, client func() string) context.Context {
	return context.WithValue(ctx, callerKey{}, caller{client, -1})
}

// withKey adds the API key of the request.
func withKey(ctx context.Context, key int) context.Context {
	c, _ := callerOf(ctx)
	return context.WithValue(ctx, callerKey{}, caller{c.client, key})
}

// callerOf returns who sent the request that ctx belongs to. ok is false
// outside of the handlers.
func callerOf(ctx context.Context) (c caller, ok bool) {
	c, ok = ctx.Value(callerKey{}).(caller)
	return c, ok
}

// callerAttrs returns the attributes of an event that concern the caller.
func callerAttrs(ctx context.Context) (attrs []any) {
	c, ok := callerOf(ctx)
	if !ok {
		return nil
	}
	attrs = append(attrs, "client", clip(c.client()))
	if c.key >= 0 {
		attrs = append(attrs, "key", c.key)
	}
	return attrs
}

// clip bounds what a client may write into a log.
func clip(s string) string { return s[:min(len(s), 200)] }
