package wire

import (
	"github.com/leatstream/leat/schemas"
)

// The content types of this package.
const (
	ContentTypeBatch  = "application/vnd.leat.batch"
	ContentTypeStream = "application/vnd.apache.arrow.stream"
)

// Values of headers are shared by all messages: nobody writes to them.
var (
	typeBatch  = []string{ContentTypeBatch}
	typeStream = []string{ContentTypeStream}
)

// Codec reads and writes batches whose schema is named by the header Leat-Schema. The zero value is ready.
type Codec struct{}

var _ schemas.Codec = Codec{}
var _ schemas.Encoder = Codec{}

// AppendRows implements schemas.Codec. Leat-Schema must be the id of dst's schema.
func (Codec) AppendRows(dst *schemas.Batch, m *schemas.Message) (int, schemas.Encoder, error) {
	f := FormatOf(dst.Schema())
	if id := m.Header.Get(schemas.HeaderSchema); id != f.idHeader[0] {
		if id == "" {
			return 0, nil, schemas.FieldErrorf(schemas.Invalid, "wire.Codec", schemas.HeaderSchema,
				"absent: a payload of %s needs the id of its schema, %s is expected (%s)", ContentTypeBatch, f.idHeader[0], f.schema)
		}
		return 0, nil, schemas.FieldErrorf(schemas.Invalid, "wire.Codec", schemas.HeaderSchema,
			"schema %.40q, but %s is expected (%s)", id, f.idHeader[0], f.schema)
	}
	n, err := f.AppendRows(dst, m.Payload)
	return n, Codec{}, err
}

// EncodeRows implements schemas.Encoder. The form has no place for errors of single rows: if there are any, the first is
// returned.
func (Codec) EncodeRows(dst []byte, h schemas.Header, out *schemas.Batch, from, to int, a *schemas.Answer) ([]byte, error) {
	if a != nil && len(a.Errs) > 0 {
		return dst, a.Errs[0].Err
	}
	f := FormatOf(out.Schema())
	h[schemas.HeaderContentType] = typeBatch
	h[schemas.HeaderSchema] = f.idHeader
	return f.AppendBatch(dst, out, from, to), nil
}

// StreamCodec reads and writes self-describing Arrow IPC streams. The zero value is ready.
type StreamCodec struct{}

var _ schemas.Codec = StreamCodec{}
var _ schemas.Encoder = StreamCodec{}

// AppendRows implements schemas.Codec.
func (StreamCodec) AppendRows(dst *schemas.Batch, m *schemas.Message) (int, schemas.Encoder, error) {
	n, err := AppendStreamRows(dst, m.Payload)
	return n, StreamCodec{}, err
}

// EncodeRows implements schemas.Encoder. The form has no place for errors of single rows: if there are any, the first is
// returned.
func (StreamCodec) EncodeRows(dst []byte, h schemas.Header, out *schemas.Batch, from, to int, a *schemas.Answer) ([]byte, error) {
	if a != nil && len(a.Errs) > 0 {
		return dst, a.Errs[0].Err
	}
	h[schemas.HeaderContentType] = typeStream
	return AppendStream(dst, out, from, to), nil
}
