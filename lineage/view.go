package lineage

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/leatstream/leat/schemas"
)

// View is a record as JSON: one line of an NDJSON export, one element of a list. Times are RFC 3339, durations
// nanoseconds, digests hex. Input and Output are objects by column; an element of a packed tensor stands under its
// feature's name if that is known, a tensor without names is nested arrays. NaN and infinities are strings, binaries
// base64, masked values "sha256:" and hex.
type View struct {
	RecordID    string          `json:"record_id"`
	RequestID   string          `json:"request_id"`
	Row         int32           `json:"row"`
	Attempt     int32           `json:"attempt"`
	TraceID     string          `json:"trace_id,omitempty"`
	ParentID    string          `json:"parent_id,omitempty"`
	Principal   string          `json:"principal,omitempty"`
	Via         string          `json:"via,omitempty"`
	From        string          `json:"from,omitempty"` // stream/partition/sequence of the input
	Pipeline    string          `json:"pipeline"`
	Revision    string          `json:"revision,omitempty"`
	Node        string          `json:"node,omitempty"`
	Role        string          `json:"role,omitempty"`
	Arm         string          `json:"arm,omitempty"`
	Propensity  float64         `json:"propensity"`
	Seed        uint64          `json:"seed"`
	State       uint64          `json:"state,omitempty"` // of a bandit: position of the last feedback that it knew
	Model       string          `json:"model,omitempty"`
	Version     int             `json:"version,omitempty"`
	Digest      string          `json:"digest,omitempty"`
	Run         string          `json:"run,omitempty"`
	InputDigest string          `json:"input_digest"`
	InSchema    string          `json:"in_schema,omitempty"`
	OutSchema   string          `json:"out_schema,omitempty"`
	Input       json.RawMessage `json:"input,omitempty"`
	Output      json.RawMessage `json:"output,omitempty"`
	Salt        string          `json:"salt,omitempty"` // only where something is masked or dropped
	Masked      []string        `json:"masked,omitempty"`
	Dropped     []string        `json:"dropped,omitempty"`
	Runtime     string          `json:"runtime,omitempty"`
	CPU         string          `json:"cpu,omitempty"`
	BatchSize   int32           `json:"batch_size"`
	BatchRow    int32           `json:"batch_row"`
	Status      string          `json:"status"`
	ErrorKind   string          `json:"error_kind,omitempty"`
	ErrorID     string          `json:"error_id,omitempty"`
	Error       string          `json:"error,omitempty"`
	QueueNS     int64           `json:"queue_ns"`
	ScoreNS     int64           `json:"score_ns"`
	EventTime   time.Time       `json:"event_time,omitzero"`
	Received    time.Time       `json:"received,omitzero"`
	Scored      time.Time       `json:"scored"`
	Position    string          `json:"position"`
	Index       int             `json:"index"`
	Appended    time.Time       `json:"appended"`
	IDReused    bool            `json:"id_reused,omitempty"`
	Superseded  bool            `json:"superseded,omitempty"`
	Feedback    *Outcome        `json:"feedback,omitempty"` // where it was asked for
}

// View returns the record as JSON shows it. It shares nothing with the record.
func (r *Record) View() View {
	v := View{
		RecordID: hex.EncodeToString(r.RecordID[:]), RequestID: r.RequestID, Row: r.Row.Row, Attempt: r.Attempt,
		TraceID: r.TraceID, ParentID: r.ParentID, Principal: r.Principal, Via: r.Via, From: r.From.String(),
		Pipeline: r.Pipeline, Revision: r.Revision, Node: r.Node, Role: r.Role, Arm: r.Arm, Propensity: r.Propensity, Seed: r.Seed, State: r.State,
		Model: r.Model, Version: r.Version, Digest: r.Digest, Run: r.Run, InputDigest: hex.EncodeToString(r.InputDigest[:]),
		Masked: r.Masked, Dropped: r.Dropped, Runtime: r.Runtime, CPU: r.CPU, BatchSize: r.BatchSize, BatchRow: r.BatchRow,
		Status: r.Status, ErrorKind: r.ErrorKind, ErrorID: r.ErrorID, Error: r.Error,
		QueueNS: int64(r.Queue), ScoreNS: int64(r.Score), EventTime: r.EventTime, Received: r.Received, Scored: r.Scored,
		Position: r.Position.String(), Index: r.Index, Appended: r.Appended.UTC(), IDReused: r.IDReused, Superseded: r.Superseded,
		Feedback: OutcomeOf(r.Feedback),
	}
	if len(r.Masked)+len(r.Dropped) > 0 {
		v.Salt = hex.EncodeToString(r.Salt[:])
	}
	if r.Input != nil {
		v.InSchema = r.InSchema.String()
		v.Input = r.object(r.Input, r.InputRow)
	}
	if r.Output != nil {
		v.OutSchema = r.OutSchema.String()
		v.Output = r.object(r.Output, r.OutputRow)
	}
	return v
}

// object writes a row as a JSON object.
func (r *Record) object(b *schemas.Batch, row int) json.RawMessage {
	dst := []byte{'{'}
	for i, n := range namesOf(b.Schema()) {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(appendText(dst, n.name), ':')
		c := b.Column(n.column)
		w := c.Width()
		switch {
		case c.IsNull(row):
			dst = append(dst, "null"...)
		case n.element >= 0:
			dst = appendValue(dst, c, row*w+n.element)
		case r.isDigest(n.name, c.Field()):
			dst = append(dst, `"sha256:`...)
			dst = hex.AppendEncode(dst, c.Data()[row*digestWidth:(row+1)*digestWidth])
			dst = append(dst, '"')
		case c.Field().Tensor():
			dst, _ = appendTensor(dst, c, c.Field().Shape, row*w)
		default:
			dst = appendValue(dst, c, row)
		}
	}
	return append(dst, '}')
}

func (r *Record) isDigest(name string, f *schemas.Field) bool {
	return f.Type == schemas.Uint8 && f.Width() == digestWidth && (name == DroppedColumn && len(r.Dropped) > 0 || slices.Contains(r.Masked, name))
}

// named is a column, or an element of a packed tensor, under the name that people use.
type named struct {
	name    string
	column  int
	element int // -1: the whole column
}

type namesKey struct{}

// namesOf lists what a row of a schema is made of: columns, and the features of packed tensors whose names clash with
// no other.
func namesOf(s *schemas.Schema) []named {
	return s.Derived(namesKey{}, func(s *schemas.Schema) any {
		seen := map[string]int{}
		for _, f := range s.Fields() {
			seen[f.Name]++
			for _, n := range f.Features {
				seen[n]++
			}
		}
		var ns []named
		for i, f := range s.Fields() {
			clash := func(n string) bool { return seen[n] > 1 }
			if f.Features == nil || slices.ContainsFunc(f.Features, clash) {
				ns = append(ns, named{f.Name, i, -1})
				continue
			}
			for e, n := range f.Features {
				ns = append(ns, named{n, i, e})
			}
		}
		return ns
	}).([]named)
}

func appendTensor(dst []byte, c *schemas.Column, shape []int, e int) ([]byte, int) {
	if len(shape) == 0 {
		return appendValue(dst, c, e), e + 1
	}
	dst = append(dst, '[')
	for i := range shape[0] {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst, e = appendTensor(dst, c, shape[1:], e)
	}
	return append(dst, ']'), e
}

// appendValue writes element e of a column as JSON.
func appendValue(dst []byte, c *schemas.Column, e int) []byte {
	switch c.Field().Type {
	case schemas.Bool:
		return strconv.AppendBool(dst, c.Data()[e] != 0)
	case schemas.Int8:
		return strconv.AppendInt(dst, int64(schemas.Values[int8](c)[e]), 10)
	case schemas.Int16:
		return strconv.AppendInt(dst, int64(schemas.Values[int16](c)[e]), 10)
	case schemas.Int32:
		return strconv.AppendInt(dst, int64(schemas.Values[int32](c)[e]), 10)
	case schemas.Int64:
		return strconv.AppendInt(dst, schemas.Values[int64](c)[e], 10)
	case schemas.Uint8:
		return strconv.AppendUint(dst, uint64(c.Data()[e]), 10)
	case schemas.Uint16:
		return strconv.AppendUint(dst, uint64(schemas.Values[uint16](c)[e]), 10)
	case schemas.Uint32:
		return strconv.AppendUint(dst, uint64(schemas.Values[uint32](c)[e]), 10)
	case schemas.Uint64:
		return strconv.AppendUint(dst, schemas.Values[uint64](c)[e], 10)
	case schemas.Float16:
		return appendFloat(dst, schemas.Float16Value(schemas.Values[uint16](c)[e]), 32)
	case schemas.Float32:
		return appendFloat(dst, float64(schemas.Values[float32](c)[e]), 32)
	case schemas.Float64:
		return appendFloat(dst, schemas.Values[float64](c)[e], 64)
	case schemas.Timestamp:
		t := time.Unix(0, schemas.Values[int64](c)[e]).UTC()
		return append(t.AppendFormat(append(dst, '"'), time.RFC3339Nano), '"')
	case schemas.Binary:
		return append(base64.StdEncoding.AppendEncode(append(dst, '"'), c.Text(e)), '"')
	}
	return appendText(dst, string(c.Text(e)))
}

func appendFloat(dst []byte, v float64, bits int) []byte {
	switch {
	case math.IsNaN(v):
		return append(dst, `"NaN"`...)
	case math.IsInf(v, 1):
		return append(dst, `"Infinity"`...)
	case math.IsInf(v, -1):
		return append(dst, `"-Infinity"`...)
	case v != 0 && (math.Abs(v) < 1e-6 || math.Abs(v) >= 1e21):
		return strconv.AppendFloat(dst, v, 'e', -1, bits)
	}
	return strconv.AppendFloat(dst, v, 'f', -1, bits)
}

// appendText writes a JSON string; the usual text needs no escape.
func appendText(dst []byte, s string) []byte {
	if strings.IndexFunc(s, func(r rune) bool { return r < 0x20 || r == '"' || r == '\\' || r >= 0x7f }) < 0 {
		return append(append(append(dst, '"'), s...), '"')
	}
	b, err := json.Marshal(s)
	if err != nil {
		panic("lineage: a string that JSON cannot write: " + err.Error()) // there is none
	}
	return append(dst, b...)
}
