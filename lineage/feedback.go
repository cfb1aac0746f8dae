package lineage

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"math"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/leatstream/leat/schemas"
)

// Feedback is what somebody came to know about a decision: its true label, a reward, a comment. It says which decision by
// request id and row, or by an entity and a time. It lies in the log of its pipeline's records, in one order with them; the
// two are joined when they are read, so feedback may come before its decision, long after it, or for one that nobody
// knows.
//
// Of two with the same ID from one principal, the one at the lower position is canonical, and the later is superseded, as
// records are. Of several about one decision all are kept; the last in the log that has a label says the label, and likewise for
// reward and comment (see Outcome).
type Feedback struct {
	ID       string // idempotency key; Complete makes one where it is empty
	Pipeline string

	RequestID string // of the decision; "" if Entity names it
	Row       int32  // in the request
	Entity    string // value of the pipeline's entity column, as text: its latest decision at or before EventTime is meant
	Node      string // whose decision it is; "" for the answer as a whole

	Label   any      // float64, string or bool; nil: none
	Reward  *float64 // finite; nil: none
	Comment string   // "": none

	Principal string    // who said it
	Via       string    // "http", "nats", "kafka"
	EventTime time.Time // when what it says was so; zero if unknown, never with Entity
	Received  time.Time

	// What readers fill in.
	Position   schemas.Position
	Index      int // in the stream's message
	Appended   time.Time
	Superseded bool // one of the same ID and principal lies at a lower position
}

// FeedbackSchema is leat.feedback.v1: one row for each Feedback of a message. Such a message has this one frame and no
// other, and lies on the subject of its pipeline's records.
var FeedbackSchema = schemas.MustSchema(
	schemas.Field{Name: "feedback_id", Type: schemas.String},
	schemas.Field{Name: "pipeline", Type: schemas.String},
	schemas.Field{Name: "request_id", Type: schemas.String}, // "": by entity
	schemas.Field{Name: "row", Type: schemas.Int32},
	schemas.Field{Name: "entity", Type: schemas.String}, // "": by request id
	schemas.Field{Name: "node", Type: schemas.String},   // "": the answer as a whole
	schemas.Field{Name: "label_number", Type: schemas.Float64, Nullable: true},
	schemas.Field{Name: "label_text", Type: schemas.String, Nullable: true},
	schemas.Field{Name: "label_bool", Type: schemas.Bool, Nullable: true},
	schemas.Field{Name: "reward", Type: schemas.Float64, Nullable: true},
	schemas.Field{Name: "comment", Type: schemas.String, Nullable: true},
	schemas.Field{Name: "principal", Type: schemas.String},
	schemas.Field{Name: "via", Type: schemas.String},
	schemas.Field{Name: "event_time", Type: schemas.Timestamp, Nullable: true},
	schemas.Field{Name: "received", Type: schemas.Timestamp},
)

// Columns of FeedbackSchema.
const (
	fbID, fbPipeline, fbRequest, fbRow, fbEntity, fbNode = 0, 1, 2, 3, 4, 5
	fbNumber, fbText, fbBool, fbReward, fbComment        = 6, 7, 8, 9, 10
	fbPrincipal, fbVia, fbEvent, fbReceived              = 11, 12, 13, 14
)

// The longest texts of a Feedback, in bytes. Together they fit into one message many times over.
const (
	maxFeedbackName = 1024 // ids, entity, node, principal
	maxFeedbackText = 8 << 10
)

// Earliest and latest time that nanoseconds since 1970 can say.
var minTime, maxTime = time.Unix(0, math.MinInt64), time.Unix(0, math.MaxInt64)

// rootNode is the path of a route's root: feedback on it is feedback on the answer.
const rootNode = "route"

// Complete checks a Feedback and fills in an ID that is empty. Invalid names the field, as in JSON.
//
// A made ID is the hex SHA-256 of all that the feedback says: target, node, values and EventTime. So saying the same again is
// a repeat; who says a label, another, and the first again, gives ids or times that differ.
func (f *Feedback) Complete() error {
	const op = "lineage.Feedback"
	invalid := func(field, format string, args ...any) error {
		return schemas.FieldErrorf(schemas.Invalid, op, field, format, args...)
	}
	if f.Pipeline == "" {
		return invalid("pipeline", "missing: name the pipeline that decided")
	}
	if err := schemas.CheckName("pipeline", f.Pipeline); err != nil {
		return invalid("pipeline", "%w", err)
	}
	for _, t := range [...]struct {
		field, text string
		most        int
	}{
		{"feedback_id", f.ID, maxFeedbackName}, {"request_id", f.RequestID, maxFeedbackName}, {"entity", f.Entity, maxFeedbackName},
		{"node", f.Node, maxFeedbackName}, {"comment", f.Comment, maxFeedbackText}, {"principal", f.Principal, maxFeedbackName}, {"via", f.Via, maxFeedbackName},
	} {
		if err := checkText(t.text, t.most); err != "" {
			return invalid(t.field, "%s", err)
		}
	}
	switch {
	case f.RequestID == "" && f.Entity == "":
		return invalid("request_id", "say which decision: request_id (and row), or entity and time")
	case f.RequestID != "" && f.Entity != "":
		return invalid("entity", "request_id names the decision already: say one of the two")
	case f.Row < 0:
		return invalid("row", "%d: rows count from 0", f.Row)
	case f.Entity != "" && f.Row != 0:
		return invalid("row", "an entity's decision has no row: leave it out")
	case f.Entity != "" && f.EventTime.IsZero():
		return invalid("time", "the entity's decision is the latest at or before a time: say it, as in RFC 3339")
	case !f.EventTime.IsZero() && (f.EventTime.Before(minTime) || f.EventTime.After(maxTime)):
		return invalid("time", "the year %d cannot be kept: want 1678 to 2262", f.EventTime.Year())
	case f.Reward != nil && (math.IsNaN(*f.Reward) || math.IsInf(*f.Reward, 0)):
		return invalid("reward", "want a finite number")
	case f.Label == nil && f.Reward == nil && f.Comment == "":
		return invalid("label", "nothing is said: give a label, a reward or a comment")
	}
	switch l := f.Label.(type) {
	case nil, bool:
	case float64:
		if math.IsNaN(l) || math.IsInf(l, 0) {
			return invalid("label", "want a finite number, a text or a boolean")
		}
	case string:
		if err := checkText(l, maxFeedbackText); err != "" {
			return invalid("label", "%s", err)
		}
	default:
		return invalid("label", "want a number, a text or a boolean")
	}
	if f.Node == rootNode {
		f.Node = ""
	}
	if f.ID == "" {
		f.ID = f.derivedID()
	}
	return nil
}

// checkText says what is wrong with a text, "" if nothing.
func checkText(s string, most int) string {
	switch {
	case len(s) > most:
		return "a text of " + itoa(len(s)) + " bytes: at most " + itoa(most)
	case !utf8.ValidString(s):
		return "want UTF-8"
	case strings.IndexByte(s, 0) >= 0:
		return "a text with a NUL byte"
	}
	return ""
}

// derivedID is the hex SHA-256 of each part with its length before it; of numbers the bits, of what is absent nothing.
func (f *Feedback) derivedID() string {
	var b []byte
	u64 := func(v uint64) { b = appendPart(b, string(binary.LittleEndian.AppendUint64(nil, v))) }
	for _, s := range [...]string{f.Pipeline, f.RequestID, f.Entity, f.Node} {
		b = appendPart(b, s)
	}
	u64(uint64(f.Row))
	switch l := f.Label.(type) {
	case nil:
		b = append(b, 0)
	case float64:
		b = append(b, 1)
		u64(math.Float64bits(l))
	case string:
		b = appendPart(append(b, 2), l)
	case bool:
		b = append(b, 3, 0)
		if l {
			b[len(b)-1] = 1
		}
	}
	if f.Reward != nil {
		b = append(b, 1)
		u64(math.Float64bits(*f.Reward))
	} else {
		b = append(b, 0)
	}
	b = appendPart(b, f.Comment)
	if !f.EventTime.IsZero() {
		u64(uint64(f.EventTime.UnixNano()))
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// key is what repeats agree in.
func (f *Feedback) key() [32]byte {
	b := appendPart(nil, "feedback")
	for _, s := range [...]string{f.Principal, f.Pipeline, f.ID} {
		b = appendPart(b, s)
	}
	return sha256.Sum256(b)
}
