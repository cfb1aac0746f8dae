package lineage

import (
	"encoding/json"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/leatstream/leat/schemas"
)

func TestParseFeedback(t *testing.T) {
	for body, want := range map[string][]Feedback{
		`{"pipeline":"fraud","request_id":"q1","row":2,"label":true,"reward":12.5,"comment":"é","node":"route/a","feedback_id":"x"}`: {
			{ID: "x", Pipeline: "fraud", RequestID: "q1", Row: 2, Label: true, Reward: num(12.5), Comment: "é", Node: "route/a"}},
		` [ {"request_id":"q1","label":3}, {"entity":"N1","time":"2026-01-02T03:04:05.000000006Z","label":"late","row":null} ] `: {
			{Pipeline: "fraud", RequestID: "q1", Label: 3.0}, {Pipeline: "fraud", Entity: "N1", EventTime: testTime, Label: "late"}},
		`{"request_id":"q1","label":""}`: {{Pipeline: "fraud", RequestID: "q1", Label: ""}},
	} {
		got, err := ParseFeedback([]byte(body), "fraud")
		if err != nil {
			t.Errorf("%s: %v", body, err)
			continue
		}
		for i := range want {
			if err := want[i].Complete(); err != nil {
				t.Fatal(err)
			}
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\n%+v\nwant %+v", body, got, want)
		}
	}
}

func TestParseFeedbackHostile(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	noise := make([]byte, 10<<20)
	for i := range noise {
		noise[i] = byte(rnd.Uint32())
	}
	const ok = `{"request_id":"q","label":1}`
	for _, c := range []struct{ body, field, says string }{
		{``, "", "empty"},
		{`   `, "", "empty"},
		{`nonsense`, "", "want an object"},
		{`null`, "", "want an object"},
		{`"text"`, "", "want an object"},
		{`17`, "", "want an object"},
		{`{`, "", "no JSON"},
		{`{"request_id":"q","label":1} {}`, "", "no JSON"},
		{`[`, "", "does not end"},
		{`[]`, "", "empty list"},
		{`[` + ok, "", "does not end"},
		{`[` + ok + `] x`, "", "follows the list"},
		{`[` + ok + `,]`, "[1]", "no JSON"},
		{`[` + ok + `,null]`, "[1]", "want an object"},
		{`[` + ok + `,[` + ok + `]]`, "[1]", "want an object"},
		{`[` + ok + `,{"request_id":"q","lable":1}]`, "[1].lable", "no such field"},
		{`[` + ok + `,{"request_id":"q"}]`, "[1].label", "nothing is said"},
		{`{"request_id":"q","Label":1}`, "Label", "no such field"},
		{`{"request_id":7,"label":1}`, "request_id", "7: want a text"},
		{`{"request_id":"","label":1}`, "request_id", "which decision"},
		{`{"label":1}`, "request_id", "which decision"},
		{`{"request_id":"q","row":1.5,"label":1}`, "row", "whole number"},
		{`{"request_id":"q","row":"1","label":1}`, "row", "whole number"},
		{`{"request_id":"q","row":-1,"label":1}`, "row", "from 0"},
		{`{"request_id":"q","row":3000000000,"label":1}`, "row", "whole number"},
		{`{"request_id":"q","label":[1]}`, "label", "a text or a boolean"},
		{`{"request_id":"q","label":{"a":1}}`, "label", "a text or a boolean"},
		{`{"request_id":"q","label":1e999}`, "label", "finite"},
		{`{"request_id":"q","reward":1e999}`, "reward", "finite"},
		{`{"request_id":"q","reward":"NaN"}`, "reward", "finite"},
		{`{"request_id":"q","reward":NaN}`, "", "no JSON"},
		{`{"request_id":"q","reward":true}`, "reward", "finite"},
		{`{"request_id":"q","comment":5}`, "comment", "a text"},
		{`{"request_id":"q","comment":""}`, "label", "nothing is said"},
		{`{"request_id":"q","label":"` + strings.Repeat("x", 9000) + `"}`, "label", "at most 8192"},
		{`{"request_id":"a\u0000b","label":1}`, "request_id", "NUL"},
		{`{"request_id":"q","entity":"e","label":1}`, "entity", "one of the two"},
		{`{"entity":"e","label":1}`, "time", "RFC 3339"},
		{`{"entity":"e","time":"yesterday","label":1}`, "time", "RFC 3339"},
		{`{"entity":"e","time":1700000000,"label":1}`, "time", "RFC 3339"},
		{`{"entity":"e","time":"9999-01-01T00:00:00Z","label":1}`, "time", "1678 to 2262"},
		{`{"pipeline":"other","request_id":"q","label":1}`, "pipeline", "topic of fraud"},
		{`{"` + strings.Repeat("k", 1<<20) + `":1}`, "kkk", "no such field"},
		{strings.Repeat("[", 10<<20), "[0]", "no JSON"},
		{`{"label":` + strings.Repeat("[", 10<<20), "", "no JSON"},
		{string(noise), "", "want an object"},
		{`[` + strings.Repeat(ok+",", MaxFeedbackItems) + ok + `]`, "", "more than 10000"},
	} {
		fs, err := ParseFeedback([]byte(c.body), "fraud")
		e := schemas.AsError("", err)
		if fs != nil || schemas.KindOf(err) != schemas.Invalid || !strings.HasPrefix(e.Field, c.field) || c.field == "" && e.Field != "" || !strings.Contains(err.Error(), c.says) || len(err.Error()) > 400 || strings.ContainsAny(err.Error(), "\n\x00") {
			t.Errorf("%.60s: %v (%s): want %s at %q", c.body, err, e.Field, c.says, c.field)
		}
	}
	if _, err := ParseFeedback([]byte(ok), ""); schemas.AsError("", err).Field != "pipeline" {
		t.Errorf("without a pipeline: %v", err)
	}
}

func FuzzParseFeedback(f *testing.F) {
	f.Add([]byte(`[{"request_id":"q","label":1},{"entity":"e","time":"2026-01-02T03:04:05Z","reward":1}]`))
	f.Add([]byte(`{"request_id":"q","row":1,"comment":"c","node":"n","feedback_id":"i"}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		fs, err := ParseFeedback(body, "fraud")
		if err != nil {
			if schemas.KindOf(err) != schemas.Invalid {
				t.Fatal(err)
			}
			return
		}
		for i := range fs { // what is shown can be said again, and is the same
			v := fs[i].View()
			b, err := json.Marshal(map[string]any{"pipeline": v.Pipeline, "request_id": v.RequestID, "row": v.Row, "entity": v.Entity, "node": v.Node, "label": v.Label,
				"reward": v.Reward, "comment": v.Comment, "feedback_id": v.ID, "time": timeOrNull(v.Time)})
			if err != nil {
				t.Fatal(err)
			}
			again, err := ParseFeedback(b, "fraud")
			if err != nil || again[0].derivedID() != fs[i].derivedID() || again[0].ID != fs[i].ID {
				t.Fatalf("%s: %v", b, err)
			}
		}
	})
}

func timeOrNull(v time.Time) any {
	if v.IsZero() {
		return nil
	}
	return v
}
