package confluent

import (
	"encoding/binary"

	"github.com/leatstream/leat/schemas"
)

const op = "schemas.Confluent"

// headLen is what stands before every value: the zero byte and the id.
const headLen = 5

// maxIndex is how deep the message of a record may lie in others.
const maxIndex = 32

// head reads the id that a record begins with.
func head(payload []byte) (id uint32, err error) {
	switch {
	case len(payload) < headLen:
		return 0, schemas.Errorf(schemas.Invalid, op, "a value of %d bytes is too short for the schema registry's format: a zero byte, then the id of a schema in 4", len(payload))
	case payload[0] != 0:
		return 0, schemas.Errorf(schemas.Invalid, op, "the value begins with the byte %#02x, not with the zero byte of the schema registry's format", payload[0])
	}
	return binary.BigEndian.Uint32(payload[1:headLen]), nil
}

// messageIndex reads the path of a Protobuf message, which stands behind the id: its length, then the indices, as
// zig-zag varints; a single zero is the file's first message.
func messageIndex(b []byte, into *[maxIndex]int) (index []int, rest []byte, err *schemas.Error) {
	next := func() (int64, bool) {
		v, n := binary.Varint(b)
		if n <= 0 || v < 0 {
			return 0, false
		}
		b = b[n:]
		return v, true
	}
	count, ok := next()
	switch {
	case !ok:
		return nil, nil, schemas.Errorf(schemas.Invalid, op, "the value does not say which message of the schema it is")
	case count == 0:
		into[0] = 0
		return into[:1], b, nil
	case count > maxIndex:
		return nil, nil, schemas.Errorf(schemas.Invalid, op, "the value's message lies %d messages deep: at most %d", count, maxIndex)
	}
	for i := range count {
		v, ok := next()
		if !ok || v > 1<<30 {
			return nil, nil, schemas.Errorf(schemas.Invalid, op, "the value does not say which message of the schema it is")
		}
		into[i] = int(v)
	}
	return into[:count], b, nil
}
