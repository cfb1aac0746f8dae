package crash

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"sync"
)

// outcome is one row's answer, to the bit.
type outcome struct {
	label  int64
	p0, p1 uint32
}

// UnmarshalJSON reads {"label":0,"probabilities":[0.25,0.75]}, as answers, outputs and records write it.
func (o *outcome) UnmarshalJSON(b []byte) error {
	var v struct {
		Label         *json.Number
		Probabilities []json.Number
	}
	if err := json.Unmarshal(b, &v); err != nil {
		return err
	}
	if v.Label == nil || len(v.Probabilities) != 2 {
		return fmt.Errorf("%s is no answer of the example's models", b)
	}
	var err error
	if o.label, err = v.Label.Int64(); err != nil {
		return err
	}
	for i, to := range []*uint32{&o.p0, &o.p1} {
		f, err := strconv.ParseFloat(v.Probabilities[i].String(), 32)
		if err != nil {
			return err
		}
		*to = math.Float32bits(float32(f))
	}
	return nil
}

// reply is an answer that a caller saw.
type reply struct {
	id, pipeline, via string
	sample            []int // the rows that were asked
	rows              []outcome
}

// event is a message whose storing was acknowledged.
type event struct {
	id, key string
	n       int // in the order of its key
	sample  []int
	bad     bool // cannot be scored: belongs to the dead letters
}

// evidence is what callers and publishers saw. Safe for concurrent use.
type evidence struct {
	mu      sync.Mutex
	replies []reply
	refused map[string]int // kinds of errors that callers were given
	by      map[string]int // replies and acknowledgements, by way in
	asked   int
	events  []event
	unsure  int // events that were given up without an acknowledgement
	repeats int // requests that were asked again under their id
}

func (e *evidence) replied(r reply) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.by["asked over "+r.via]++
	e.replies = append(e.replies, r)
}

func newEvidence() *evidence {
	return &evidence{refused: map[string]int{}, by: map[string]int{}}
}

func (e *evidence) refuse(kind string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.refused[kind]++
}

func (e *evidence) stored(v event, via string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.by["published over "+via]++
	e.events = append(e.events, v)
}

func (e *evidence) count(n *int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	*n++
}

// record is what the judge needs of a lineage record.
type record struct {
	RecordID    string  `json:"record_id"`
	RequestID   string  `json:"request_id"`
	Row         int     `json:"row"`
	From        string  `json:"from"`
	Pipeline    string  `json:"pipeline"`
	Run         string  `json:"run"`
	Via         string  `json:"via"`
	InputDigest string  `json:"input_digest"`
	Output      outcome `json:"output"`
	Status      string  `json:"status"`
	ErrorKind   string  `json:"error_kind"`
	Superseded  bool    `json:"superseded"`
}

// message is one stored message of a topic.
type message struct {
	Partition int32               `json:"partition"`
	Sequence  uint64              `json:"sequence"`
	Key       string              `json:"key"`
	Headers   map[string][]string `json:"headers"`
	Value     json.RawMessage     `json:"value"`
}

func (m *message) header(name string) string {
	if v := m.Headers[name]; len(v) > 0 {
		return v[0]
	}
	return ""
}

// answers reads the rows of an output message.
func (m *message) answers() ([]outcome, error) {
	var v struct{ Rows []outcome }
	err := json.Unmarshal(m.Value, &v)
	return v.Rows, err
}

// letter is a dead letter.
type letter struct {
	id, kind, reason string
}

// truth is what the server has stored, once everything has drained.
type truth struct {
	records         []record // of no job, superseded ones too
	inputs, outputs []message
	dead            []letter
}
