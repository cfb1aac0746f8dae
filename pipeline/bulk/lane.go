package bulk

import (
	"context"
	"errors"
	"io"
	"slices"

	"github.com/leatstream/leat/schemas"
)

// lane reads one partition's range, or a file, ahead of the feeder: while the feeder is busy with another chunk, a
// goroutine of the lane reads and decodes the rows of its next one. The feeder waits for that before it touches the lane.
type lane struct {
	r      Range
	open   func() (source, error)
	src    source // nil: not opened yet
	stored bool
	staged *rows
	spare  *schemas.Batch

	pos        ref  // everything before it belongs to earlier chunks
	positioned bool // src stands behind what is staged
	eof        bool
	finished   bool       // nothing is left, although the range goes on
	task       chan error // of the goroutine; nil: none
}

func newLane(r Range, open func() (source, error), in *schemas.Schema, stored bool) *lane {
	l := &lane{r: r, open: open, stored: stored, staged: newRows(in), spare: schemas.NewBatch(in), pos: ref{Unit: r.First}}
	l.staged.stored = stored
	return l
}

// end is the first place behind the range.
func (l *lane) end() ref { return ref{Unit: l.r.Last + 1} }

// over reports whether all of the range belongs to chunks.
func (l *lane) over() bool { return l.finished || !l.pos.before(l.end()) }

// ahead begins to read the next chunk.
func (l *lane) ahead(ctx context.Context, most int) {
	if l.over() {
		return
	}
	task := make(chan error, 1)
	l.task = task
	go func() { task <- l.stage(ctx, most, span{}, false) }()
}

// wait returns when nothing is read any more.
func (l *lane) wait() error {
	if l.task == nil {
		return nil
	}
	err := <-l.task
	l.task = nil
	return err
}

// close ends the lane; ctx has ended.
func (l *lane) close(ctx context.Context) {
	_ = l.wait() // nobody wants to know
	if l.src != nil {
		l.src.close(ctx)
	}
}

// stage reads until a chunk is there: the planned one, or one of full size.
func (l *lane) stage(ctx context.Context, most int, sp span, known bool) error {
	if l.src == nil {
		var err error
		if l.src, err = l.open(); err != nil {
			return err
		}
	}
	if !l.positioned {
		if err := l.src.seek(ctx, l.r, l.pos); err != nil {
			return err
		}
		l.staged.reset()
		l.positioned, l.eof = true, false
	}
	for !l.eof {
		if known && !l.short(sp) || !known && len(l.staged.at)+len(l.staged.bad) >= most {
			return nil
		}
		err := l.src.fill(ctx, l.staged)
		if errors.Is(err, io.EOF) {
			l.eof = true
		} else if err != nil {
			return err
		}
	}
	return nil
}

// short reports whether a plan covers rows that are not staged yet.
func (l *lane) short(sp span) bool {
	return !l.eof && l.lastStaged().before(sp.End)
}

// lastStaged returns the first place behind everything staged.
func (l *lane) lastStaged() ref {
	last := l.pos
	if n := len(l.staged.at); n > 0 {
		last = l.src.after(l.staged.at[n-1])
	}
	if n := len(l.staged.bad); n > 0 {
		if b := l.src.after(l.staged.bad[n-1].at); last.before(b) {
			last = b
		}
	}
	return last
}

// pass goes behind a chunk.
func (l *lane) pass(sp span) {
	if l.positioned && l.lastStaged().before(sp.End) {
		l.positioned = l.eof // what lies between is not staged: go there when more is needed
	}
	n, nbad := l.staged.before(sp.End)
	l.spare = l.staged.drop(n, nbad, l.spare)
	l.pos = sp.End
}

// maxBad bounds the bad rows of a chunk: each takes up to maxReason bytes and the width of an empty row.
const maxBad = 2048

// cut chooses the next chunk from what is staged: at most so many rows, that fit a message.
func (l *lane) cut(most int) span {
	sp := span{Stream: l.src.stream(), Partition: l.r.Partition, First: l.pos, End: l.end()}
	n, nbad := 0, 0
	for n+nbad < most && nbad < maxBad {
		at, isBad, ok := l.peek(n, nbad)
		if !ok {
			break
		}
		if isBad {
			nbad++
		} else {
			n++
		}
		sp.End = l.src.after(at)
	}
	if fits := l.staged.fit(0, n, maxChunkBytes-nbad*(maxReason+64)); fits < n {
		if fits == 0 && !(nbad > 0 && l.staged.bad[0].at.before(l.staged.at[0])) {
			l.refuse()
			return l.cut(most)
		}
		sp.End = l.staged.at[fits]
		return sp
	}
	if l.eof && n == len(l.staged.at) && nbad == len(l.staged.bad) && l.stored {
		sp.End = l.end() // the rest of the range, gaps included
	}
	return sp
}

// peek returns the next staged place after n rows and nbad bad ones.
func (l *lane) peek(n, nbad int) (at ref, isBad, ok bool) {
	s := l.staged
	switch {
	case n < len(s.at) && nbad < len(s.bad):
		if s.bad[nbad].at.before(s.at[n]) {
			return s.bad[nbad].at, true, true
		}
		return s.at[n], false, true
	case n < len(s.at):
		return s.at[n], false, true
	case nbad < len(s.bad):
		return s.bad[nbad].at, true, true
	}
	return ref{}, false, false
}

// refuse makes the first staged row a bad one: it does not fit a message.
func (l *lane) refuse() {
	s := l.staged
	b := newBad(s.at[0], schemas.Errorf(schemas.Invalid, "bulk.cut", "the row is larger than a message may be: at most %d bytes", maxChunkBytes))
	if len(s.origins) > 0 {
		b.when = s.origins[0].when
	}
	l.spare = s.drop(1, 0, l.spare)
	i, _ := slices.BinarySearchFunc(s.bad, b.at, func(x bad, at ref) int { return compareRef(x.at, at) })
	s.bad = slices.Insert(s.bad, i, b)
}
