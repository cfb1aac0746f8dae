package pipeline

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"time"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/lineage"
	"github.com/leatstream/leat/schemas"
)

// transactional makes a unit durable as one: the records, outputs and dead letters of one partition, and the settlement
// of what they were made from, in one transaction. So nothing has to be found again after a crash: what is settled is
// whole, and of what is not settled nothing is seen.
//
// Partitions commit beside one another. A unit that cannot be stored now is tried again, the same messages in the same
// order, while its partition waits; if the door closes before it was stored, it and everything behind it stays
// unsettled. One whose partition was given to another owner is dropped: there, it is done again.
type transactional struct {
	c       *committer
	into    connectors.Transactor
	records lineage.Encoder
}

// newTransactional returns a committer of one transaction for each unit.
func newTransactional(ctx context.Context, p *processor, into connectors.Transactor, records lineage.Encoder) *committer {
	t := &transactional{into: into, records: records}
	t.c = newCommitter(ctx, p, t)
	t.c.gather, t.c.full = p.host.TransactionInterval, p.host.TransactionRecords
	return t.c
}

// transaction is a unit as a Transactor takes it.
type transaction struct {
	msgs    []schemas.Message // records, outputs, dead letters
	records int               // so many of msgs
	outputs int
	accept  []*connectors.Delivery
}

// commit stores a unit, or drops it.
func (t *transactional) commit(l *line, u *unit) {
	c := t.c
	start := time.Now()
	pos, err := t.store(u)
	c.p.host.m.transactions.WithLabelValues(c.p.name, outcome(err)).Inc()
	switch {
	case err == nil:
		c.p.transact.Observe(time.Since(start).Seconds())
		c.p.commitRows.Observe(float64(u.rows))
		if pos.Sequence > 0 {
			c.p.settledUpTo(pos.Sequence)
		}
	case errors.Is(err, connectors.ErrRevoked):
		c.p.host.Log.Info("partition lost: what was scored of it is dropped", "pipeline", c.p.name, "partition", u.works[0].partition, "term", u.works[0].term, "rows", u.rows)
		l.end(u.works[0].term)
	default: // the door has closed
		c.p.host.Log.Warn("events stay unsettled", "pipeline", c.p.name, "partition", u.works[0].partition, "rows", u.rows, slog.Any("error", err))
		l.end(never)
	}
	for _, w := range u.works {
		w.done()
	}
}

func (t *transactional) wait() {}

// store tries until the unit is stored, its term is over or its door closes. The position is that of its last record.
func (t *transactional) store(u *unit) (schemas.Position, error) {
	c, dr := t.c, u.works[0].door
	var tx *transaction
	for {
		pos, err := t.try(u, &tx)
		var refused *connectors.RefusedError
		switch {
		case err == nil || errors.Is(err, connectors.ErrRevoked):
			return pos, err
		case errors.As(err, &refused) && tx.bury(u, refused):
			tx = t.transaction(u, tx.msgs[:tx.records])
			continue
		case c.ctx.Err() != nil: // the process gives up
			return pos, err
		}
		c.p.host.Log.Error("transaction failed: trying again", "pipeline", c.p.name, "partition", u.works[0].partition, slog.Any("error", err))
		c.p.host.m.transactions.WithLabelValues(c.p.name, "failed").Inc()
		if !dr.wait(c.ctx, retryPause) {
			return schemas.Position{}, err
		}
	}
}

// try makes one call. The messages are made at the first one.
func (t *transactional) try(u *unit, tx **transaction) (pos schemas.Position, err error) {
	ctx, cancel := context.WithTimeout(t.c.ctx, t.c.timeout)
	defer cancel()
	if *tx == nil {
		records, err := t.records.Messages(ctx, &u.recs)
		if err != nil {
			return pos, err
		}
		*tx = t.transaction(u, records)
	}
	at, err := t.into.Transact(ctx, (*tx).msgs, (*tx).accept)
	if n := (*tx).records; err == nil && n > 0 && n <= len(at) {
		pos = at[n-1]
	}
	return pos, err
}

// transaction gathers what follows from a unit.
func (t *transactional) transaction(u *unit, records []schemas.Message) *transaction {
	tx := &transaction{msgs: slices.Clip(records), records: len(records)}
	for _, w := range u.works {
		tx.msgs = append(tx.msgs, w.outputs...)
		tx.accept = append(tx.accept, w.accept...)
	}
	tx.outputs = len(tx.msgs) - tx.records
	for _, w := range u.works {
		for _, r := range w.reject {
			tx.msgs = append(tx.msgs, t.into.DeadLetter(r.d, r.cause))
			tx.accept = append(tx.accept, r.d)
		}
	}
	slices.SortFunc(tx.accept, func(a, b *connectors.Delivery) int { // as they were received
		return cmp.Compare(a.From.Sequence, b.From.Sequence)
	})
	return tx
}

// bury sends an event whose output can never be stored to the dead letters; false if the message is not an output.
func (tx *transaction) bury(u *unit, refused *connectors.RefusedError) bool {
	i := refused.Index - tx.records
	if i < 0 || i >= tx.outputs {
		return false
	}
	for _, w := range u.works {
		if i < len(w.outputs) {
			w.bury(w.sources[i], refused)
			return true
		}
		i -= len(w.outputs)
	}
	return false
}

// outcome names how a unit ended, for the metrics.
func outcome(err error) string {
	switch {
	case err == nil:
		return "committed"
	case errors.Is(err, connectors.ErrRevoked):
		return "revoked"
	}
	return "given_up"
}
