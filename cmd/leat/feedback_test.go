package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/leatstream/leat/lineage"
	"github.com/leatstream/leat/pipeline/feedback"
)

// feedbackPipeline is a pipeline of this test alone, whose decisions are about a destination.
func feedbackPipeline(t *testing.T, name string) {
	t.Helper()
	spec := file(t, "p.yaml", "apiVersion: leat/v1\nkind: Pipeline\nname: "+name+"\nroute: {model: flight-delay}\nfeedback: {entity: dest, within: 1h}\n")
	ok(t, "apply", spec)
}

// listed is what leat feedback list prints.
func listed(t *testing.T, args ...string) (all []lineage.FeedbackView) {
	t.Helper()
	out := bufio.NewScanner(strings.NewReader(ok(t, append([]string{"feedback", "list", "--json", "--limit", "0"}, args...)...)))
	out.Buffer(nil, 1<<20)
	for out.Scan() {
		var v lineage.FeedbackView
		if err := json.Unmarshal(out.Bytes(), &v); err != nil {
			t.Fatal(err)
		}
		all = append(all, v)
	}
	return all
}

func TestFeedback(t *testing.T) {
	feedbackPipeline(t, "told")
	ok(t, "score", "told", filepath.Join(example, "flight.json"), "--id", "told-1")
	has(t, ok(t, "feedback", "put", "told", "told-1", "--label", "true", "--reward", "-12.5", "--comment", "an hour late"), "recorded as ")
	ok(t, "feedback", "put", "told", "told-1", "--label", "late")
	ok(t, "feedback", "put", "told", "told-1", "--label", "late") // again
	ok(t, "feedback", "put", "told", "told-1", "--row", "5", "--label", "1", "--text")
	ok(t, "feedback", "put", "told", "--entity", "ATL", "--time", "0s", "--reward", "3") // now: the flight to Atlanta
	ok(t, "feedback", "put", "told", "--entity", "ATL", "--time", "2h", "--label", "7")  // before it was scored

	has(t, ok(t, "feedback", "list", "told"), `told-1/0  label true reward -12.5 comment "an hour late"  by http`, `told-1/0  label "late"`,
		`told-1/5  label "1"  by http  unknown`, "ATL at ", "of told-1/0")
	if all := listed(t, "told"); len(all) != 5 || all[2].Unknown != true || all[3].Decision.RequestID != "told-1" || !all[4].Unknown || all[4].Label != 7.0 {
		t.Errorf("%+v", all)
	}
	if n, m := len(listed(t, "told", "--all")), len(listed(t, "told", "--unknown")); n != 6 || m != 2 {
		t.Errorf("%d with repeats, %d unknown", n, m)
	}
	has(t, ok(t, "lineage", "get", "told-1"), "feedback\n", `label "late"`, "repeat", "unknown", "reward 3  by http  of told-1/0")
	has(t, ok(t, "lineage", "list", "--pipeline", "told", "--with", "feedback"), `<- label "late" reward 3 comment "an hour late"`)
	path := filepath.Join(t.TempDir(), "told.ndjson")
	ok(t, "lineage", "export", path, "--pipeline", "told", "--with", "feedback")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	has(t, string(b), `"feedback":{"label":"late","reward":3,"comment":"an hour late","count":3,`)

	// What prune may delete then holds all that was said: repeats, and what nobody knows.
	path = filepath.Join(t.TempDir(), "all.ndjson")
	has(t, ok(t, "lineage", "export", path), "what it covers may be pruned")
	if b, err = os.ReadFile(path); err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(b, []byte(`,"pipeline":"told","request_id":"told-1","row":0,"label":"late",`)); n != 2 {
		t.Errorf("%d lines of what was said twice", n)
	}
	has(t, string(b), `"pipeline":"told","request_id":"told-1","row":5,"label":"1",`)
}

func TestFeedbackImport(t *testing.T) {
	feedbackPipeline(t, "imported")
	// By the usual names; ids of digits stay ids, empty cells say nothing, other columns are left out.
	csv := file(t, "usual.csv", "request_id,row,label,reward,comment,weather\n0042,1,1.5,,,rain\nb,,,2,\"said, so\",sun\n")
	var r imported
	if err := json.Unmarshal([]byte(ok(t, "feedback", "import", csv, "--pipeline", "imported", "--json")), &r); err != nil || r.Kept != 2 {
		t.Fatal(r, err)
	}
	ok(t, "feedback", "import", csv, "--pipeline", "imported") // again: repeats
	all := listed(t, "imported")
	if len(all) != 2 || all[0].RequestID != "0042" || *all[0].Row != 1 || all[0].Label != 1.5 || all[0].Reward != nil || all[1].Label != nil || *all[1].Reward != 2 || all[1].Comment != "said, so" {
		t.Fatalf("%+v", all)
	}
	// By names of the file's own; thousands of rows, in several requests.
	var lines strings.Builder
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for i := range 4500 {
		fmt.Fprintf(&lines, "{\"plane\":\"N%d\",\"arrived\":%q,\"late\":%v,\"p\":\"imported\"}\n", i, at.Add(time.Duration(i)*time.Second).Format(time.RFC3339), i%3 == 0)
	}
	ok(t, "feedback", "import", file(t, "own.ndjson", lines.String()), "--pipeline-column", "p", "--entity-column", "plane", "--time-column", "arrived", "--label-column", "late")
	if all = listed(t, "imported"); len(all) != 4502 || all[4501].Entity != "N4499" || all[4501].Label != false || !all[4501].Time.Equal(at.Add(4499*time.Second)) || all[4499].Label != true {
		t.Fatalf("%d, %+v", len(all), all[len(all)-1])
	}
	// A list that ends at the limit that holds if none is said tells of it, beside the list.
	if r := leat("feedback", "list", "imported"); strings.Count(r.out, "\n") != 100 || r.err != "... the first 100 (--limit 0 prints all)\n" {
		t.Errorf("%d lines, and %q", strings.Count(r.out, "\n"), r.err)
	}
	if r := leat("feedback", "list", "imported", "--limit", "2"); strings.Count(r.out, "\n") != 2 || r.err != "" {
		t.Errorf("%q, and %q", r.out, r.err)
	}
	// Parquet, from an export: what was said of one pipeline's requests, said again of another's.
	feedbackPipeline(t, "again")
	ok(t, "score", "imported", filepath.Join(example, "flight.json"), "--id", "0042")
	ok(t, "feedback", "put", "imported", "0042", "--reward", "9")
	parquet := filepath.Join(t.TempDir(), "out.parquet")
	ok(t, "lineage", "export", parquet, "--pipeline", "imported", "--with", "feedback")
	if r := leat("feedback", "import", parquet, "--pipeline-column", "via"); r.code != 1 || !strings.Contains(r.err, `no pipeline "http"`) {
		t.Errorf("%d %s", r.code, r.err)
	}
	if all = listed(t, "imported", "--request-id", "0042"); len(all) != 2 || all[0].Unknown != true || all[1].Unknown {
		t.Errorf("%+v", all)
	}

	for _, c := range []struct {
		args, in string
		code     int
		says     string
	}{
		{csv, "", 2, "say --pipeline NAME"},
		{csv + " --pipeline nosuch", "", 1, `no pipeline "nosuch"`},
		{csv + " --pipeline imported --label-column lable", "", 2, "--label-column lable: no such column; it has request_id, row"},
		{csv + " --pipeline imported --reward-column weather", "", 1, `line 2: "rain" is no float64`},
		{csv + " --pipeline imported --comment-column label --label-column label", "", 2, "taken as two things"},
		{csv + " --pipeline imported --row-column weather --reward-column reward", "", 1, `line 2: "rain" is no int32`},
		{parquet + " --pipeline imported --row-column node", "", 2, "column node: a column of utf8 cannot be the row in the request"},
		{"- --pipeline imported --format csv", "a,b\n1,2\n", 2, "no column says which decision"},
		{"- --pipeline imported --format csv", "request_id,b\n1,2\n", 2, "nothing is said"},
		{"- --pipeline imported --format csv", "request_id,label\nq1,1\n,2\n", 1, "1 row recorded, then: row 2: request_id: say which decision"},
		{"- --pipeline imported --format csv", "request_id,row,label\nq1,-1,1\n", 1, "row 1: row: -1: rows count from 0"},
		{"- --pipeline imported --format csv", "entity,label\ne,1\n", 1, "row 1: time: the entity's decision"},
		{"- --pipeline imported --format csv", "entity,time,label\ne,yesterday,1\n", 1, "yesterday"},
		{"- --pipeline imported --format ndjson", `{"request_id":"q","reward":1e999}`, 1, "reward"},
		{"nope.csv --pipeline imported", "", 1, "nope.csv"},
	} {
		r := leatIn(t.Context(), c.in, append([]string{"feedback", "import"}, strings.Fields(c.args)...)...)
		if r.code != c.code || !strings.Contains(r.err, c.says) || c.code == 1 && strings.Count(strings.TrimSpace(r.err), "\n") > 0 {
			t.Errorf("%s: exit %d: %s", c.args, r.code, r.err)
		}
	}
	for _, c := range []struct{ args, says string }{
		{"put imported", "say which decision"},
		{"put imported q --entity e", "say which decision"},
		{"put imported q --label NaN", "finite"},
		{"put imported q --reward much", `--reward "much": want a number`},
		{"put imported --entity e --time never --label 1", "--time"},
		{"list imported --limit -1", "--limit -1"},
	} {
		if r := leat(append([]string{"feedback"}, strings.Fields(c.args)...)...); r.code != 2 || !strings.Contains(r.err, c.says) {
			t.Errorf("%s: exit %d: %s", c.args, r.code, r.err)
		}
	}
	if r := leat("feedback", "put", "imported", "q"); r.code != 1 || !strings.Contains(r.err, "nothing is said") {
		t.Errorf("%d %s", r.code, r.err)
	}
	var reply feedback.Reply
	if err := json.Unmarshal([]byte(ok(t, "feedback", "put", "imported", "q", "--label", "1", "--id", "mine", "--json")), &reply); err != nil || reply.IDs[0] != "mine" {
		t.Error(reply, err)
	}
}

// The entity may be a column that no model reads: it is recorded, and changes no answer.
func TestFeedbackEntityBeside(t *testing.T) {
	ok(t, "apply", file(t, "p.yaml", "apiVersion: leat/v1\nkind: Pipeline\nname: planes\nroute: {model: flight-delay}\nfeedback: {entity: tailnum}\ncolumns: {tailnum: string}\n"))
	flight := filepath.Join(example, "flight.json")
	plain := askOne(t, "flight-delay", flight, nil)
	for i, tail := range []any{"N1", "N2", "N1", nil} {
		got := askOne(t, "planes", flight, map[string]any{"tailnum": tail}, "Leat-Request-Id", fmt.Sprint("plane-", i))
		if got.Label != plain.Label || !slices.Equal(got.Probabilities, plain.Probabilities) || got.Model != plain.Model {
			t.Errorf("%v: %+v, want %+v", tail, got, plain)
		}
	}
	has(t, ok(t, "pipelines", "show", "planes"), "tailnum", "entity: tailnum", "within: 24h")
	ok(t, "feedback", "put", "planes", "--entity", "N1", "--time", "0s", "--reward", "1")
	ok(t, "feedback", "put", "planes", "--entity", "N3", "--time", "0s", "--reward", "2")
	if all := listed(t, "planes"); len(all) != 2 || all[0].Decision == nil || all[0].Decision.RequestID != "plane-2" || !all[1].Unknown {
		t.Errorf("%+v", all)
	}
	ok(t, "lineage", "explain-route", "plane-2")
}
