package jsonrow

import (
	"strconv"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/internal/jsonscan"
)

// ContentType is what answers carry.
const ContentType = "application/json"

var typeJSON = []string{ContentType} // shared by all answers: nobody writes to it

// Codec reads and writes native JSON. The zero value is ready; it is safe for concurrent use.
type Codec struct{}

var _ schemas.RowCodec = Codec{}

// AppendRows implements schemas.Codec.
func (Codec) AppendRows(dst *schemas.Batch, m *schemas.Message) (int, schemas.Encoder, error) {
	n, _, enc, err := decodeInto(dst, m.Payload, false, nil)
	if err != nil {
		return 0, nil, err
	}
	return n, enc, nil
}

// AppendGood implements schemas.RowCodec. A payload in columns form goes in as a whole or not at all.
func (Codec) AppendGood(dst *schemas.Batch, m *schemas.Message, bad []schemas.RowError) (int, []schemas.RowError, schemas.Encoder, error) {
	n, all, enc, err := decodeInto(dst, m.Payload, true, bad)
	if err != nil {
		return 0, bad, nil, err
	}
	return n, all, enc, nil
}

func decodeInto(dst *schemas.Batch, payload []byte, event bool, bad []schemas.RowError) (int, []schemas.RowError, schemas.Encoder, *schemas.Error) {
	if !dst.Room(len(payload)) {
		return 0, bad, nil, schemas.Errorf(schemas.Overloaded, op, "the batch holds too much text to take %d bytes more", len(payload))
	}
	p := planOf(dst.Schema())
	d := p.pool.Get().(*decoder)
	d.dst, d.start, d.event, d.bad = dst, dst.Rows(), event, bad
	d.nulls, d.id, d.form, d.where = 0, "", none, ""
	d.feats = d.feats[:0]
	n, err := d.decode(payload)
	enc, bad := encoderOf(d.form, d.id), d.bad
	d.scan.Reset(nil)
	d.dst, d.bad = nil, nil
	p.pool.Put(d)
	return n, bad, enc, err
}

func encoderOf(f form, id string) schemas.Encoder {
	switch {
	case id == "" && f == columns:
		return plainColumns
	case id == "":
		return plainRows
	}
	return &encoder{form: f, id: id}
}

var plainRows, plainColumns schemas.Encoder = &encoder{form: rows}, &encoder{form: columns}

// encoder answers in the form of the request.
type encoder struct {
	form form
	id   string
}

// Rows and Columns return encoders of the two forms, for answers to nobody's request: outputs to topics.
func Rows() schemas.Encoder { return plainRows }

// Columns is Rows for the columns form.
func Columns() schemas.Encoder { return plainColumns }

// RequestID implements schemas.Identified.
func (e *encoder) RequestID() string { return e.id }

// EncodeRows implements schemas.Encoder. out holds the rows that were answered; the place of a row that failed, one of
// a.Errs (in order of rows), is taken by null, so that the answer's rows are the request's.
func (e *encoder) EncodeRows(dst []byte, h schemas.Header, out *schemas.Batch, from, to int, a *schemas.Answer) ([]byte, error) {
	h[schemas.HeaderContentType] = typeJSON
	p := planOf(out.Schema())
	dst = append(dst, '{')
	var errs []schemas.RowError
	id := e.id
	if a != nil {
		errs = a.Errs
		if id == "" {
			id = a.RequestID
		}
	}
	dst = member(dst, `"id":`, id)
	if a != nil {
		dst = member(dst, `"model":`, a.Model)
		dst = member(dst, `"version":`, a.Version)
		dst = member(dst, `"answered":`, a.Answered)
		dst = member(dst, `"fallback":`, a.Fallback)
	}
	if e.form == columns {
		dst = p.columnsJSON(dst, out, from, to, errs)
	} else {
		dst = p.rowsJSON(dst, out, from, to, errs)
	}
	if len(errs) > 0 {
		dst = append(dst, `,"errors":`...)
		dst = appendErrors(dst, errs)
	}
	return append(dst, '}'), nil
}

func member(dst []byte, key, v string) []byte {
	if v == "" {
		return dst
	}
	dst = append(dst, key...)
	dst = jsonscan.AppendString(dst, v)
	return append(dst, ',')
}

func (p *plan) rowsJSON(dst []byte, out *schemas.Batch, from, to int, errs []schemas.RowError) []byte {
	dst = append(dst, `"rows":[`...)
	n := 0
	for r := from; r < to || len(errs) > 0; n++ {
		if n > 0 {
			dst = append(dst, ',')
		}
		if failed(&errs, n, r == to) {
			dst = append(dst, "null"...)
			continue
		}
		dst = p.AppendObject(dst, out, r)
		r++
	}
	return append(dst, ']')
}

// failed reports whether the request's row n is the next one that failed. Past the last answered row only failed ones
// are left.
func failed(errs *[]schemas.RowError, n int, rest bool) bool {
	if len(*errs) > 0 && ((*errs)[0].Row <= n || rest) {
		*errs = (*errs)[1:]
		return true
	}
	return false
}

// AppendObject appends row r as an object.
func (p *plan) AppendObject(dst []byte, out *schemas.Batch, r int) []byte {
	dst = append(dst, '{')
	for i := range p.cols {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, p.cols[i].keyPrefix...)
		dst = jsonscan.AppendRow(dst, out.Column(i), r)
	}
	return append(dst, '}')
}

// AppendObject appends row r of a batch to dst as one JSON object, as answers in rows form hold it: for NDJSON files.
func AppendObject(dst []byte, b *schemas.Batch, r int) []byte {
	return planOf(b.Schema()).AppendObject(dst, b, r)
}

func (p *plan) columnsJSON(dst []byte, out *schemas.Batch, from, to int, errs []schemas.RowError) []byte {
	dst = append(dst, `"columns":{`...)
	for i := range p.cols {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, p.cols[i].keyPrefix...)
		dst = append(dst, '[')
		n, left := 0, errs
		for r := from; r < to || len(left) > 0; n++ {
			if n > 0 {
				dst = append(dst, ',')
			}
			if failed(&left, n, r == to) {
				dst = append(dst, "null"...)
				continue
			}
			dst = jsonscan.AppendRow(dst, out.Column(i), r)
			r++
		}
		dst = append(dst, ']')
	}
	return append(dst, '}')
}

func appendErrors(dst []byte, errs []schemas.RowError) []byte {
	dst = append(dst, '[')
	for i, e := range errs {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, `{"row":`...)
		dst = strconv.AppendInt(dst, int64(e.Row), 10)
		dst = append(dst, `,"kind":`...)
		dst = jsonscan.AppendString(dst, e.Err.Kind.String())
		dst = append(dst, `,"message":`...)
		dst = jsonscan.AppendString(dst, e.Err.Public())
		if e.Err.Field != "" {
			dst = append(dst, `,"field":`...)
			dst = jsonscan.AppendString(dst, e.Err.Field)
		}
		if e.Err.ID != "" {
			dst = append(dst, `,"id":`...)
			dst = jsonscan.AppendString(dst, e.Err.ID)
		}
		dst = append(dst, '}')
	}
	return append(dst, ']')
}
