package pipeline

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/leatstream/leat/pipeline/lookup"
	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/document"
)

// lookupNode answers with what a table has of a key. What is recorded of it has two columns more, which no other node sees:
// the version of the value that was read, and its age in nanoseconds when it was. Both are null where there was no value.
type lookupNode struct {
	*nodeFacts
	source   lookup.Source
	columns  []lookup.Column
	key      string
	missing  string
	stale    time.Duration
	recorded *nodeFacts // whose batches hold what is recorded
	rows     sync.Pool  // of *[]*lookup.Row

	table             *lookup.Table // when it is loaded
	hits, missed, old prometheus.Counter
}

func (b *builder) lookup(n *Node, facts *nodeFacts, at string, env *schemas.Schema) graphNode {
	l := n.Lookup
	if !b.keyed(l.Key, document.Join(at, "key"), env) {
		return nil
	}
	x := &lookupNode{nodeFacts: facts, source: l.source(), key: l.Key, missing: l.Missing, stale: time.Duration(l.Stale)}
	var fs []schemas.Field
	for i := range l.Columns {
		c := l.Columns[i].column()
		x.columns = append(x.columns, c)
		never := c.Default != nil && (l.Missing == MissingDefault || l.Missing == MissingError)
		fs = append(fs, schemas.Field{Name: c.Name, Type: c.Type, Shape: c.Shape, Nullable: !never})
	}
	var err error
	if facts.out, err = schemas.NewSchema(fs); err != nil {
		b.fault(document.Join(at, "columns"), "%v", err)
		return nil
	}
	name := facts.path[strings.LastIndexByte(facts.path, '/')+1:]
	of := &nodeFacts{}
	if of.out, err = schemas.NewSchema(append(fs,
		schemas.Field{Name: name + ".version", Type: schemas.Uint64, Nullable: true},
		schemas.Field{Name: name + ".age", Type: schemas.Int64, Nullable: true})); err != nil {
		b.fault(document.Join(at, "columns"), "%v; a lookup records the version and age of a value by this name", err)
		return nil
	}
	facts.in, x.recorded = union(env, nil, l.Key), of
	b.graph.lookups = append(b.graph.lookups, x)
	return x
}

// open fills the table. The caller closes it.
func (n *lookupNode) open(ctx context.Context, ms *models, pipeline string) (*lookup.Table, error) {
	if ms.tables == nil {
		return nil, schemas.Errorf(schemas.Unavailable, "pipeline.compile", "%s: this process holds no tables to look up in", n.path)
	}
	t, err := ms.tables.Open(ctx, n.source, n.columns)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", n.path, err)
	}
	n.table = t
	outcome := func(o string) prometheus.Counter { return ms.m.lookups.WithLabelValues(pipeline, n.path, o) }
	n.hits, n.missed, n.old = outcome("hit"), outcome("missing"), outcome("stale")
	return t, nil
}

func (n *lookupNode) run(f *flow, in *schemas.Batch, ids []int32, out *schemas.Batch) {
	first := f.enter(n.nodeFacts, ids)
	for _, row := range ids {
		f.by[row] = -1
	}
	if f.past != nil {
		f.past.answer(f, n.nodeFacts, ids, first, out)
		return
	}
	kept := n.recorded.batch()
	last := kept.Schema().Len() - 1
	version, age := kept.Column(last-1), kept.Column(last)
	rows, _ := n.rows.Get().(*[]*lookup.Row)
	if rows == nil {
		rows = new([]*lookup.Row)
	}
	absent := n.table.Absent(n.missing == MissingDefault)
	hits, old := 0, 0
	var scratch [64]byte
	keys, now := in.Column(0), time.Now().UnixNano()
	for i, row := range ids {
		var r *lookup.Row
		key := appendKey(scratch[:0], keys, i)
		if !keys.IsNull(i) {
			r = n.table.Find(key)
		}
		ago, stale := int64(0), false
		if r == nil {
			version.AppendNull()
			age.AppendNull()
		} else {
			ago = max(now-r.Time(), 0)
			schemas.Append(version, r.Version())
			version.EndRow()
			schemas.Append(age, ago)
			age.EndRow()
			stale = n.stale > 0 && ago > int64(n.stale)
		}
		switch {
		case r != nil && !stale:
			hits++
			*rows = append(*rows, r)
			continue
		case stale:
			old++
		}
		*rows = append(*rows, absent)
		if n.missing == MissingError {
			f.visits[first+i].err = f.fail(row, n.lacks(key, keys.IsNull(i), stale, time.Duration(ago)))
		}
	}
	from := out.Rows()
	n.table.Append(out, *rows)
	out.Advance(len(ids))
	for c := range last - 1 {
		kept.Column(c).AppendColumn(out.Column(c), from, from+len(ids))
	}
	kept.Advance(len(ids))
	f.keep(n.recorded, kept, first)
	clear(*rows)
	*rows = (*rows)[:0]
	n.rows.Put(rows)
	if n.hits != nil {
		n.hits.Add(float64(hits))
		n.old.Add(float64(old))
		n.missed.Add(float64(len(ids) - hits - old))
	}
}

// lacks says why a row has no value.
func (n *lookupNode) lacks(key []byte, null, stale bool, age time.Duration) error {
	const op = "pipeline.lookup"
	switch {
	case null:
		return schemas.FieldErrorf(schemas.Invalid, op, n.key, "null; a key is needed to look up in %s", n.source)
	case stale:
		return schemas.FieldErrorf(schemas.Invalid, op, n.key, "key %.80q of %s is %v old: at most %v is taken", key, n.source, age.Round(time.Millisecond), n.stale)
	}
	return schemas.FieldErrorf(schemas.Invalid, op, n.key, "no key %.80q in %s", key, n.source)
}
