package connectors

import (
	"context"
	"errors"

	"github.com/leatstream/leat/schemas"
)

// Transactor is the optional power to store messages and to settle deliveries as one: readers see what follows from a
// delivery if it is settled, and only then, and once. The deliveries come from sources of the same transport, whose
// Topics are read and written with it.
//
// A source holds a partition for a term. Deliveries carry its number, Delivery.Term, which grows whenever the partition
// may have had another owner meanwhile, also if the same source gets it back: from then on nothing of an earlier term
// is settled any more, and what was not settled under it is delivered again under a later one, here or elsewhere.
//
// It is safe for concurrent use: calls for different partitions run in parallel. Those for one partition are made one
// at a time. The caller keeps msgs and accept, and changes neither during the call.
type Transactor interface {
	// Transact stores msgs, in their order, and accepts the deliveries: all of it, or nothing. It returns when that is
	// durable, with the positions of msgs.
	//
	// accept holds at least one delivery; all are of one partition, source and term. They are its oldest ones that are
	// not settled, in their order, none left out: what is to be rejected is among them, with its DeadLetter among msgs.
	// Anything else is a mistake of the caller's: Internal, and nothing is stored. After success they are settled as by
	// Settler.Accept. msgs may be none; they may go to any topic of the transport, and none is folded by its ID.
	//
	// An error says that nothing of msgs is seen by anybody and the deliveries are still lent, or that the outcome is
	// not known. By kind:
	//   - wrapping ErrRevoked: the term is over. The caller drops what he made of its deliveries, here and in later
	//     calls, and settles none of them; somebody else gets them, unless an earlier try had taken effect.
	//   - a *RefusedError (Invalid): one message can never be stored as it is. NotFound: a topic does not exist. Denied: a
	//     right is missing. Nothing is stored. The call may be changed, or repeated when somebody has put it right.
	//   - any other, the end of ctx included: the outcome may not be known. The caller repeats the same call, the same
	//     messages in the same order, until it succeeds or its term is over: it takes effect once, however often it is
	//     repeated. If it turns out that an earlier try did, the positions may be zero. He may also give up, settle
	//     nothing of the partition any more and close the source; then the deliveries come again, unless a try did.
	Transact(ctx context.Context, msgs []schemas.Message, accept []*Delivery) ([]schemas.Position, error)

	// DeadLetter makes the message that Settler.Reject would write, to be stored by Transact and by nothing else: its
	// Topic is the transport's own. It always fits: of a message that is too large to be stored with the cause the
	// payload is left out, and the headers say so. It does no I/O.
	DeadLetter(d *Delivery, cause error) schemas.Message
}

// ErrRevoked is wrapped (in an Unavailable error) by Transact when the term of its deliveries is over.
var ErrRevoked = errors.New("the partition was given to another owner")

// RefusedError is Transact's answer to a message that can never be stored as it is, such as one beyond the transport's
// limit: Invalid.
type RefusedError struct {
	Index int   // of the message, in msgs
	Err   error // Invalid, with size and limit
}

// Error returns the cause's line.
func (e *RefusedError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *RefusedError) Unwrap() error { return e.Err }
