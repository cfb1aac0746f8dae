package oip

import (
	"strconv"

	"github.com/leatstream/leat/schemas"
)

const op = "schemas.OIP"

// HeaderLength says how many bytes of the payload are JSON; binary tensors follow.
const HeaderLength = "Inference-Header-Content-Length"

// The content types of answers.
const (
	ContentType       = "application/json"
	ContentTypeBinary = "application/octet-stream"
)

var typeJSON, typeBinary = []string{ContentType}, []string{ContentTypeBinary} // shared by all answers

// Codec reads and writes the protocol. The zero value is ready; it is safe for concurrent use.
type Codec struct{}

var _ schemas.Codec = Codec{}

// AppendRows implements schemas.Codec. The encoder also implements schemas.Identified and schemas.OutputChecker.
func (Codec) AppendRows(dst *schemas.Batch, m *schemas.Message) (int, schemas.Encoder, error) {
	if !dst.Room(len(m.Payload)) {
		return 0, nil, schemas.Errorf(schemas.Overloaded, op, "the batch holds too much text to take %d bytes more", len(m.Payload))
	}
	doc, tail := m.Payload, []byte(nil)
	if s := m.Header.Get(HeaderLength); s != "" {
		n, err := strconv.ParseUint(s, 10, 31)
		if err != nil || int(n) > len(doc) {
			return 0, nil, schemas.FieldErrorf(schemas.Invalid, op, HeaderLength, "%q is not the length of the JSON in a payload of %d bytes", clip(s), len(doc))
		}
		doc, tail = doc[:n], doc[n:]
	}
	p := planOf(dst.Schema())
	d := p.pool.Get().(*decoder)
	n, enc, err := d.decode(dst, doc, tail)
	d.release()
	p.pool.Put(d)
	if err != nil {
		return 0, nil, err
	}
	return n, enc, nil
}

func clip(s string) string {
	if len(s) > 60 {
		return s[:57] + "..."
	}
	return s
}
