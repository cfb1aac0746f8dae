package lineage

import (
	"bytes"
	"math"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/leatstream/leat/schemas"
)

func num(v float64) *float64 { return &v }

func encodeFeedback(t testing.TB, fs ...Feedback) []byte {
	t.Helper()
	b := schemas.NewBatch(FeedbackSchema)
	for i := range fs {
		if err := fs[i].Complete(); err != nil {
			t.Fatal(err)
		}
		appendFeedbackRow(b, &fs[i])
	}
	return appendFrame(nil, feedbackFormat, b, 0, len(fs))
}

func someFeedback() []Feedback {
	return []Feedback{
		{ID: "f1", Pipeline: "fraud", RequestID: "q1", Row: 3, Node: "route/b", Label: true, Principal: "alice", Via: "http", Received: testTime},
		{Pipeline: "fraud", Entity: "N123 é", EventTime: testTime, Label: "late", Reward: num(-12.5), Comment: "said: \"x\"", Received: testTime},
		{Pipeline: "fraud", RequestID: "q1", Label: 4.0, Received: testTime},
		{Pipeline: "fraud", RequestID: "q1", Label: false, Received: testTime},
		{Pipeline: "fraud", RequestID: "q1", Label: "", Received: testTime}, // an empty text is a label
		{Pipeline: "fraud", RequestID: "q1", Reward: num(0), Received: testTime},
		{Pipeline: "fraud", RequestID: "q1", Comment: "only a comment", Received: testTime},
	}
}

func TestFeedbackRoundTrip(t *testing.T) {
	want := someFeedback()
	msg := encodeFeedback(t, want...)
	if !isFeedback(msg) {
		t.Fatal("not known as feedback")
	}
	b := schemas.NewBatch(FeedbackSchema)
	for range 2 { // a batch that is used again holds nothing of before
		if err := decodeFeedback(msg, b); err != nil {
			t.Fatal(err)
		}
		for i := range want {
			want[i].Index = i
			if got := feedbackAt(b, i); !reflect.DeepEqual(*got, want[i]) {
				t.Errorf("%d: %+v\nwant %+v", i, *got, want[i])
			}
		}
	}
}

// The schema's id is what readers know a message by: a change of a column is a new version.
func TestFeedbackSchemaID(t *testing.T) {
	if got := FeedbackSchema.ID().String(); got != feedbackSchemaID {
		t.Errorf("%s: the columns of leat.feedback.v1 changed", got)
	}
}

// Made ids differ in all that is said, and in nothing else.
func TestFeedbackIDs(t *testing.T) {
	base := Feedback{Pipeline: "fraud", RequestID: "q1", Label: 1.0, Reward: num(2), Comment: "c", Node: "route"}
	id := func(change func(*Feedback)) string {
		f := base
		change(&f)
		if err := f.Complete(); err != nil {
			t.Fatal(err)
		}
		return f.ID
	}
	first := id(func(*Feedback) {})
	for i, same := range []func(*Feedback){
		func(f *Feedback) { f.Principal, f.Via, f.Received = "bob", "kafka", testTime },
		func(f *Feedback) { f.Node = "" }, // the root is the answer
	} {
		if id(same) != first {
			t.Errorf("%d: another id for the same", i)
		}
	}
	seen := map[string]int{first: -1}
	for i, other := range []func(*Feedback){
		func(f *Feedback) { f.Pipeline = "other" },
		func(f *Feedback) { f.RequestID = "q2" },
		func(f *Feedback) { f.Row = 1 },
		func(f *Feedback) { f.RequestID, f.Entity, f.EventTime = "", "q1", testTime },
		func(f *Feedback) { f.Node = "route/a" },
		func(f *Feedback) { f.Label = "1" },
		func(f *Feedback) { f.Label = true },
		func(f *Feedback) { f.Label = false },
		func(f *Feedback) { f.Label = nil },
		func(f *Feedback) { f.Reward = nil },
		func(f *Feedback) { f.Reward = num(0) },
		func(f *Feedback) { f.Comment = "" },
		func(f *Feedback) { f.EventTime = testTime },
	} {
		got := id(other)
		if at, ok := seen[got]; ok {
			t.Errorf("%d has the id of %d", i, at)
		}
		seen[got] = i
	}
	if id(func(f *Feedback) { f.ID = "mine" }) != "mine" {
		t.Error("a caller's id is replaced")
	}
}

func TestFeedbackThatIsNone(t *testing.T) {
	long := strings.Repeat("x", maxFeedbackText+1)
	for _, c := range []struct {
		field, says string
		change      func(*Feedback)
	}{
		{"pipeline", "missing: name the pipeline", func(f *Feedback) { f.Pipeline = "" }},
		{"pipeline", "lower-case", func(f *Feedback) { f.Pipeline = "a.b" }},
		{"request_id", "which decision", func(f *Feedback) { f.RequestID = "" }},
		{"request_id", "at most 1024", func(f *Feedback) { f.RequestID = long }},
		{"request_id", "UTF-8", func(f *Feedback) { f.RequestID = "\xff" }},
		{"request_id", "NUL", func(f *Feedback) { f.RequestID = "a\x00b" }},
		{"row", "from 0", func(f *Feedback) { f.Row = -1 }},
		{"row", "no row", func(f *Feedback) { f.RequestID, f.Entity, f.EventTime, f.Row = "", "e", testTime, 1 }},
		{"entity", "one of the two", func(f *Feedback) { f.Entity = "e" }},
		{"entity", "at most 1024", func(f *Feedback) { f.Entity = long }},
		{"time", "RFC 3339", func(f *Feedback) { f.RequestID, f.Entity = "", "e" }},
		{"time", "1678 to 2262", func(f *Feedback) { f.EventTime = time.Date(3000, 1, 1, 0, 0, 0, 0, time.UTC) }},
		{"time", "1678 to 2262", func(f *Feedback) { f.EventTime = time.Date(1600, 1, 1, 0, 0, 0, 0, time.UTC) }},
		{"feedback_id", "at most", func(f *Feedback) { f.ID = long }},
		{"node", "at most", func(f *Feedback) { f.Node = long }},
		{"label", "nothing is said", func(f *Feedback) { f.Label = nil }},
		{"label", "finite", func(f *Feedback) { f.Label = math.NaN() }},
		{"label", "finite", func(f *Feedback) { f.Label = math.Inf(-1) }},
		{"label", "number, a text or a boolean", func(f *Feedback) { f.Label = []any{1} }},
		{"label", "number, a text or a boolean", func(f *Feedback) { f.Label = 3 }}, // an int: callers say float64
		{"label", "at most 8192", func(f *Feedback) { f.Label = long }},
		{"reward", "finite", func(f *Feedback) { f.Reward = num(math.NaN()) }},
		{"reward", "finite", func(f *Feedback) { f.Reward = num(math.Inf(1)) }},
		{"comment", "at most 8192", func(f *Feedback) { f.Comment = long }},
		{"comment", "UTF-8", func(f *Feedback) { f.Comment = "\xc3(" }},
	} {
		f := Feedback{Pipeline: "fraud", RequestID: "q1", Label: 1.0}
		c.change(&f)
		err := f.Complete()
		if schemas.KindOf(err) != schemas.Invalid || schemas.AsError("", err).Field != c.field || !strings.Contains(err.Error(), c.says) || len(err.Error()) > 300 {
			t.Errorf("%s, %s: %v", c.field, c.says, err)
		}
	}
}

// Feedback of the largest texts fits into a message, and the estimate that cuts is not below what is written.
func TestFeedbackSize(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	text := func(n int) string { return strings.Repeat("x", rnd.IntN(n+1)) }
	for range 50 {
		var fs []Feedback
		size := feedbackSize.overhead
		for range 1 + rnd.IntN(40) {
			f := Feedback{ID: text(1024), Pipeline: "fraud", RequestID: "q" + text(1023), Node: text(1024), Comment: "c" + text(8191), Label: text(8192), Principal: text(1024), Via: "http", Received: testTime}
			fs = append(fs, f)
			size += feedbackBytes(&f)
		}
		if got := len(encodeFeedback(t, fs...)); got > size {
			t.Fatalf("%d bytes, %d were thought", got, size)
		}
	}
}

func FuzzDecodeFeedback(f *testing.F) {
	msg := encodeFeedback(f, someFeedback()...)
	f.Add(msg)
	f.Add(msg[:len(msg)-1])
	f.Add(append(bytes.Clone(msg), msg...))
	b := schemas.NewBatch(FeedbackSchema)
	f.Fuzz(func(t *testing.T, msg []byte) {
		if !isFeedback(msg) || decodeFeedback(msg, b) != nil {
			return
		}
		for i := range b.Rows() {
			feedbackAt(b, i).key()
		}
	})
}

const feedbackSchemaID = "a800ea2df88309f5f51187f3109daff4"
