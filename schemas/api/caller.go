package api

import "context"

// Caller is who asks for an operation, as the door that took it knows.
type Caller struct {
	Principal string // of the token; "" for an open loopback caller and for our own processes
	Via       string // "http" or "nats"
}

type callerKey struct{}

// WithCaller returns a context under which CallerOf tells c: what a door hands to Operation.Handle.
func WithCaller(ctx context.Context, c Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

// CallerOf returns who asks; zero if no door said it.
func CallerOf(ctx context.Context) Caller {
	c, _ := ctx.Value(callerKey{}).(Caller)
	return c
}
