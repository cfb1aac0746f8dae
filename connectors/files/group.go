package files

import (
	"fmt"

	"github.com/apache/arrow/go/v15/arrow"
)

// groupReader reads a column row group after row group, each opened when it is come to: after its pages were checked.
type groupReader struct {
	groups []int
	rows   func(group int) int64
	open   func(group int) (chunkReader, error)
	cur    chunkReader
	left   int64 // rows in cur
}

// next opens the next row group that has rows; false: there is none.
func (r *groupReader) next() (bool, error) {
	r.Release()
	for len(r.groups) > 0 {
		g := r.groups[0]
		r.groups = r.groups[1:]
		if r.left = r.rows(g); r.left == 0 {
			continue
		}
		var err error
		r.cur, err = r.open(g)
		return err == nil, err
	}
	return false, nil
}

// NextBatch implements chunkReader. Its chunks are those of the row groups.
func (r *groupReader) NextBatch(n int64) (*arrow.Chunked, error) {
	var chunks []arrow.Array
	defer func() {
		for _, c := range chunks {
			c.Release()
		}
	}()
	for n > 0 {
		if r.left == 0 {
			if ok, err := r.next(); err != nil {
				return nil, err
			} else if !ok {
				break
			}
		}
		want := min(n, r.left)
		c, err := r.cur.NextBatch(want)
		if err != nil {
			return nil, err
		}
		for _, a := range c.Chunks() {
			a.Retain()
			chunks = append(chunks, a)
		}
		got := int64(c.Len())
		c.Release()
		if got != want {
			return nil, fmt.Errorf("the file is damaged: %d values where its footer says %d", got, want)
		}
		r.left -= want
		n -= want
	}
	if len(chunks) == 0 {
		return nil, fmt.Errorf("the file is damaged: it has fewer values than rows")
	}
	return arrow.NewChunked(chunks[0].DataType(), chunks), nil
}

// Release implements chunkReader.
func (r *groupReader) Release() {
	if r.cur != nil {
		r.cur.Release()
		r.cur = nil
	}
}
