package lineage

import (
	"bytes"

	"github.com/apache/arrow/go/v15/arrow/ipc"
	"github.com/leatstream/leat/schemas"
)

// appendBatch writes rows [from, to) of b as one RecordBatch message.
func appendBatch(dst []byte, b *schemas.Batch, from, to int) ([]byte, error) {
	part := b
	if from != 0 || to != b.Rows() {
		part = schemas.NewBatch(b.Schema())
		part.AppendRange(b, from, to)
	}
	rec, err := part.Record(nil)
	if err != nil {
		return dst, err
	}
	defer rec.Release()
	var head, all bytes.Buffer
	w := ipc.NewWriter(&head, ipc.WithSchema(rec.Schema()))
	if err := w.Close(); err != nil {
		return dst, err
	}
	w = ipc.NewWriter(&all, ipc.WithSchema(rec.Schema()))
	if err := w.Write(rec); err != nil {
		return dst, err
	}
	return append(dst, all.Bytes()[head.Len()-8:]...), nil
}
