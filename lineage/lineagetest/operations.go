package lineagetest

import (
	"bytes"
	"context"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/leatstream/leat/lineage"
	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/api"
)

func operations(t *testing.T, b *bench) {
	s, r := b.open(t)
	table := map[string]api.Operation{}
	for _, o := range lineage.Operations(r, lineage.NewKeeper(r, b.stores.KV)) {
		table[o.Name] = o
	}
	call := func(ctx context.Context, name, path, query, body string) (any, error) {
		t.Helper()
		o := table[name]
		q, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		req, err := o.Decode(func(string) string { return path }, q, strings.NewReader(body))
		if err != nil {
			return nil, err
		}
		return o.Handle(ctx, req)
	}
	must := func(name, path, query, body string) any {
		t.Helper()
		reply, err := call(t.Context(), name, path, query, body)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		return reply
	}
	in := random(floats("x", 2), 30, 1)
	requests(t, s, contextOf("fraud", ""), in, 0, 10, lineage.StatusOK)
	requests(t, s, contextOf("fraud", ""), in, 8, 12, lineage.StatusOK) // two again
	requests(t, s, contextOf("fraud", "job"), in, 12, 15, lineage.StatusError)

	var got []string
	pages, cursor := 0, ""
	for {
		page := must("lineage.list", "", "limit=4&cursor="+url.QueryEscape(cursor), "").(*lineage.ListReply)
		for _, v := range page.Records {
			got = append(got, v.RequestID)
		}
		pages++
		if cursor = page.Next; cursor == "" {
			break
		}
	}
	want := ""
	for i := range 15 {
		want += fmt.Sprint("q", i, " ")
	}
	if strings.Join(got, " ")+" " != want || pages != 4 {
		t.Fatalf("%d pages: %v", pages, got)
	}
	if n := must("lineage.count", "", "status=error", "").(*lineage.Totals).Records; n != 3 {
		t.Fatalf("%d errors", n)
	}
	if v := must("lineage.get", "q9", "", "").(*lineage.GetReply).Records; len(v) != 2 || !v[1].Superseded || v[0].Superseded {
		t.Fatalf("%+v", v)
	}
	var file bytes.Buffer
	body := must("lineage.export", "", "format=ndjson&id=mine", "").(*lineage.Body)
	if err := body.WriteBody(&file); err != nil || strings.Count(file.String(), "\n") != 15 || body.ContentType() != "application/x-ndjson" {
		t.Fatalf("%v, %d lines", err, strings.Count(file.String(), "\n"))
	}
	before := schemas.FormatTime(time.Now().Add(time.Minute))
	if _, err := call(t.Context(), "lineage.prune", "", "", `{"before":"`+before+`"}`); schemas.KindOf(err) != schemas.Invalid {
		t.Fatalf("prune before confirm: %v", err)
	}
	must("lineage.confirm", "", "", `{"id":"mine"}`)
	if ps := must("lineage.prune", "", "", `{"before":"`+before+`"}`).(*lineage.PruneReply); ps.Logs[0].Messages != 2 {
		t.Fatalf("%+v", ps)
	}
	if st := must("lineage.status", "", "", "").(*lineage.StatusReply); len(st.Logs) != 3 {
		t.Fatalf("%+v", st)
	}
	ctx, cancel := context.WithCancel(t.Context())
	tail, err := call(ctx, "lineage.tail", "", "pipeline=fraud&since="+url.QueryEscape(schemas.FormatTime(time.Now().Add(-time.Hour))), "")
	if err != nil {
		t.Fatal(err)
	}
	var seen lockedBuffer
	done := make(chan error, 1)
	go func() { done <- tail.(*lineage.Body).WriteBody(&seen) }()
	requests(t, s, contextOf("fraud", ""), in, 20, 21, lineage.StatusOK)
	eventually(t, "the tail shows it", func() bool { return strings.Contains(seen.String(), `"q20"`) })
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	for _, c := range [][3]string{
		{"lineage.list", "limit=0x", "limit"}, {"lineage.list", "limit=5000", "limit"}, {"lineage.list", "cursor=abc", "cursor"},
		{"lineage.list", "status=good", "status"}, {"lineage.count", "role=boss", "role"}, {"lineage.export", "format=xml", "format"},
		{"lineage.export", "id=a/b", "id"}, {"lineage.tail", "model=a@b@c", "model"}, {"lineage.list", "nope=1", "nope"},
	} {
		if _, err := call(t.Context(), c[0], "", c[1], ""); schemas.KindOf(err) != schemas.Invalid || schemas.AsError("", err).Field != c[2] {
			t.Errorf("%s?%s: %v", c[0], c[1], err)
		}
	}
	if _, err := call(t.Context(), "lineage.get", "unknown", "", ""); schemas.KindOf(err) != schemas.NotFound {
		t.Fatalf("an unknown request: %v", err)
	}
}
