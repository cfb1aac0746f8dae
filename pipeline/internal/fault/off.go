//go:build !leatfault

package fault

// The faults; see on.go.
const (
	ReplyFirst  = false
	AcceptFirst = false
	InsertFirst = false
	DoneFirst   = false
)

// Widen does nothing.
func Widen() {}
