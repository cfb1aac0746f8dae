package bulk

import (
	"encoding/binary"
	"encoding/json"
	"strconv"

	"github.com/leatstream/leat/schemas"
)

// A result is what the log of a job holds for one chunk:
//
//	"LJR1" | u32 length | header as JSON | Arrow batch message of the layout's columns and the outputs
//
// All integers are little-endian. A result depends on the chunk, the revision and the environment alone: no time, no
// name of a worker, so that two workers that scored the same chunk wrote the same bytes. A chunk whose result is too
// large for a message goes in parts: parts 1.. first, part 0 last, so that part 0 says that all are there.
type result struct {
	Chunk  int64  `json:"chunk"`
	Part   int    `json:"part,omitempty"`
	Parts  int    `json:"parts"`
	Layout layout `json:"layout"`
	span
	body []byte
}

const resultMagic = "LJR1"

// maxHead bounds the header of a result that is believed.
const maxHead = 4096

func (r *result) append(dst []byte) []byte {
	head, err := json.Marshal(r)
	if err != nil {
		panic("bulk: a result's header cannot be written: " + err.Error()) // numbers alone: cannot happen
	}
	dst = append(dst, resultMagic...)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(head)))
	dst = append(dst, head...)
	return append(dst, r.body...)
}

// parseResult reads the header; body aliases b.
func parseResult(b []byte) (*result, error) {
	const op = "bulk.parseResult"
	if len(b) < 8 || string(b[:4]) != resultMagic {
		return nil, schemas.Errorf(schemas.Invalid, op, "%d bytes that are no result", len(b))
	}
	n := binary.LittleEndian.Uint32(b[4:])
	if n > maxHead || int(n) > len(b)-8 {
		return nil, schemas.Errorf(schemas.Invalid, op, "header of %d bytes in a result of %d", n, len(b))
	}
	r := &result{}
	if err := json.Unmarshal(b[8:8+n], r); err != nil {
		return nil, schemas.Errorf(schemas.Invalid, op, "header: %w", err)
	}
	if r.Chunk < 0 || r.Chunk >= MaxChunks || r.Parts < 1 || r.Part < 0 || r.Part >= r.Parts || r.Layout >= layouts || r.End.before(r.First) {
		return nil, schemas.Errorf(schemas.Invalid, op, "header %s makes no sense", b[8:8+n])
	}
	r.body = b[8+n:]
	return r, nil
}

// Subjects of a job's log.
func resultSubject(chunk int64, part int) string {
	s := "r." + strconv.FormatInt(chunk, 10)
	if part > 0 {
		s += "." + strconv.Itoa(part)
	}
	return s
}

// planSubject holds the span of a chunk of a stored source, inserted before the chunk is fed for the first time.
func planSubject(chunk int64) string { return "p." + strconv.FormatInt(chunk, 10) }

// parsePlan reads the span that lies under planSubject.
func parsePlan(b []byte) (s span, err error) {
	if len(b) > maxHead {
		return s, schemas.Errorf(schemas.Invalid, "bulk.parsePlan", "plan of %d bytes", len(b))
	}
	if err = json.Unmarshal(b, &s); err != nil {
		return s, schemas.Errorf(schemas.Invalid, "bulk.parsePlan", "%w", err)
	}
	if s.End.before(s.First) {
		return s, schemas.Errorf(schemas.Invalid, "bulk.parsePlan", "from %s to %s", s.First, s.End)
	}
	return s, nil
}
