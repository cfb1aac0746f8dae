package codec

import (
	"strings"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/internal/jsonscan"
	"github.com/leatstream/leat/schemas/jsonrow"
	"github.com/leatstream/leat/schemas/oip"
	"github.com/leatstream/leat/schemas/wire"
)

// Accepted lists the content types, for error lines and descriptions of the API.
const Accepted = "application/json (native, or Open Inference Protocol), application/octet-stream with " + oip.HeaderLength +
	", " + wire.ContentTypeStream + ", " + wire.ContentTypeBatch

// For returns the codec of a request by its Content-Type; none means JSON. JSON is native, unless the first name that
// decides says otherwise: "inputs" and "outputs" are the Open Inference Protocol's. An unknown type is Invalid. It does
// not allocate.
func For(m *schemas.Message) (schemas.Codec, error) {
	ct := m.Header.Get(schemas.HeaderContentType)
	none := ct == ""
	ct = media(ct)
	binary := binaryTensors(m)
	switch {
	case ct == wire.ContentTypeBatch:
		return wire.Codec{}, nil
	case none || strings.EqualFold(ct, jsonrow.ContentType):
		return document(m), nil
	case strings.EqualFold(ct, wire.ContentTypeStream):
		return wire.StreamCodec{}, nil
	case strings.EqualFold(ct, oip.ContentTypeBinary) && binary:
		return oip.Codec{}, nil
	case strings.EqualFold(ct, wire.ContentTypeBatch):
		return wire.Codec{}, nil
	case strings.EqualFold(ct, oip.ContentTypeBinary):
		return nil, schemas.FieldErrorf(schemas.Invalid, op, schemas.HeaderContentType,
			"%s needs the header %s", oip.ContentTypeBinary, oip.HeaderLength)
	}
	return nil, schemas.FieldErrorf(schemas.Invalid, op, schemas.HeaderContentType, "%.60q is not taken; accepted are: %s", m.Header.Get(schemas.HeaderContentType), Accepted)
}

// document returns the codec of JSON.
func document(m *schemas.Message) schemas.Codec {
	if binaryTensors(m) || sniff(m.Payload) {
		return oip.Codec{}
	}
	return jsonrow.Codec{}
}

// media is a content type without its parameters.
func media(ct string) string {
	if i := strings.IndexByte(ct, ';'); i >= 0 {
		ct = ct[:i]
	}
	return strings.TrimSpace(ct)
}

// binaryTensors reports whether the message is JSON with binary tensors behind it.
func binaryTensors(m *schemas.Message) bool { return m.Header.Get(oip.HeaderLength) != "" }

// sniff reports whether a JSON document is of the Open Inference Protocol: the first name that is not one that it shares
// with others is "inputs" or "outputs", with an array. An event that is one row may have any names. What sniff cannot
// read is left to the native codec, which says what is wrong with it.
func sniff(payload []byte) bool {
	var s jsonscan.Scanner
	s.Reset(payload)
	if !s.Open('{') {
		return false
	}
	for n := 0; s.More('}', n); n++ {
		k, ok := s.Key()
		if !ok {
			return false
		}
		switch string(k) {
		case "inputs", "outputs":
			return s.Peek() == '['
		case "id", "parameters", "model_name", "model_version":
			if !s.Skip() {
				return false
			}
		default:
			return false
		}
	}
	return false
}
