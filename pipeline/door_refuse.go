package pipeline

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/lineage"
	"github.com/leatstream/leat/schemas"
)

// refuse answers a request that was not admitted, at once.
func (dr *door) refuse(ctx context.Context, it *item, err error) {
	e := dr.p.host.public(err, dr.p.name)
	dr.p.failed(1, e)
	if it.id == "" {
		it.id = makeID(it.d)
	}
	if dr.p.host.Refuse != nil {
		dr.p.host.Refuse(lineage.Refusal{Pipeline: dr.p.name, Principal: dr.principal(it.d), Via: dr.Via, RequestID: it.id,
			Kind: e.Kind.String(), Error: e.Error(), Time: it.received})
	}
	if it.d.ReplyTo == "" || dr.Responder == nil {
		return
	}
	h, body := schemas.ErrorAnswer(e, it.id)
	if err := dr.Responder.Respond(ctx, []connectors.Response{{To: it.d.ReplyTo, Header: h, Payload: body}}); err != nil {
		dr.p.host.Log.Warn("answer lost", "pipeline", dr.p.name, "error", err)
	}
}

// reject writes a stored message to the dead letters and settles it; false if the door closed before that was possible,
// which leaves it to whoever gets it next. Until then everything behind it waits, as behind an output that cannot be
// written: nothing is lost, and order is kept.
func (dr *door) reject(ctx context.Context, d *connectors.Delivery, cause error) bool {
	for internal := 0; ; {
		err := d.Settler.Reject(ctx, d, cause)
		switch {
		case err == nil:
			return true
		case ctx.Err() != nil:
			return false
		}
		dr.p.host.Log.Error("dead letter not written: trying again", "pipeline", dr.p.name, "position", d.From.String(), slog.Any("error", err))
		if schemas.KindOf(err) == schemas.Internal {
			if internal++; internal == 10 {
				return true // settled already, or never to be: what is behind it goes on
			}
		}
		if !dr.wait(ctx, retryPause) {
			return false
		}
	}
}

// retryPause is the pause before what failed outside is tried again.
const retryPause = 250 * time.Millisecond

// wait returns false when the door closes or the process ends.
func (dr *door) wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-dr.ended:
	case <-ctx.Done():
	}
	return false
}

// passing reports whether an error may be gone at the next try, for reasons that are not in the rows.
func passing(err error) bool {
	k := schemas.KindOf(err)
	return k == schemas.Unavailable || k == schemas.Overloaded || k == schemas.Expired
}

// principal is who asked.
func (it *item) principal() string {
	if it.door == nil {
		return it.by
	}
	return it.door.principal(it.d)
}

func (dr *door) principal(d *connectors.Delivery) string {
	if dr.Trusted {
		return d.Header.Get(schemas.HeaderPrincipal)
	}
	return ""
}

func drained(err error) bool {
	return errors.Is(err, schemas.ErrDrained) || errors.Is(err, context.Canceled)
}
