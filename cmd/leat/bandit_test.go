package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/leatstream/leat/pipeline"
	"github.com/leatstream/leat/pipeline/control"
)

// post sends JSON and reads the answer.
func post(t *testing.T, url string, body []byte, header ...string) map[string]any {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	r, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil || r.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s %s %v", url, r.Status, b, err)
	}
	m := map[string]any{}
	if err := json.Unmarshal(b, &m); err != nil {
		t.Fatalf("%s: %s", url, b)
	}
	return m
}

// TestBanditAcrossRestarts: what a bandit has learnt, and how the rows of every route found their way, is the same for the server's
// next life, also under a revision that does not serve any more.
func TestBanditAcrossRestarts(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	at, stop, err := start(data)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if code := stop(); code != 0 {
			t.Errorf("the server ended with %d", code)
		}
	}()
	there := func(args ...string) []string { return append(args, "--server", at.HTTP) }
	for _, m := range []string{"flight-delay", "flight-boost"} {
		ok(t, there("models", "push", filepath.Join(example, m))...)
	}
	for _, f := range []string{"bandit", "split", "switch"} {
		ok(t, there("apply", filepath.Join(routes, f+".yaml"))...)
	}
	flights := map[bool][]byte{}
	for bandit, file := range map[bool]string{true: filepath.Join(example, "flight.json"), false: filepath.Join(routes, "flight.json")} {
		if flights[bandit], err = os.ReadFile(file); err != nil {
			t.Fatal(err)
		}
	}
	var ids []string
	trees := 0
	score := func(name, id string, more ...string) {
		m := post(t, at.HTTP+"/v1/pipelines/"+name+"/score", flights[name == "flights-bandit"], append([]string{"Leat-Request-Id", id}, more...)...)
		ids = append(ids, id)
		if name != "flights-bandit" {
			return
		}
		reward := 0
		if m["model"] == "flight-boost" {
			trees++
			reward = 1
		}
		post(t, at.HTTP+"/v1/feedback", fmt.Appendf(nil, `{"pipeline":"flights-bandit","request_id":%q,"row":0,"reward":%d}`, id, reward))
	}
	var status pipeline.BanditStatus
	learnt := func(n int) {
		t.Helper()
		eventually(t, "the bandit knows all rewards", func() bool {
			status = okJSON[pipeline.BanditStatus](t, there("bandit", "show", "flights-bandit")...)
			return status.Bandits[0].Rewards == uint64(n) && status.Read == status.Last
		})
	}
	for i := range 30 {
		score("flights-bandit", fmt.Sprint("b", i))
	}
	learnt(30)
	before := trees
	for i := range 30 {
		score("flights-bandit", fmt.Sprint("c", i))
		score("flights-split", fmt.Sprint("s", i), "Leat-Arm", "nobody")
		score("flights-switch", fmt.Sprint("w", i))
	}
	learnt(60)
	if trees-before < 24 || *status.Bandits[0].Arms[1].Share < 0.8 {
		t.Errorf("the model that is rewarded got %d of the last 30, and has %+v", trees-before, status.Bandits[0])
	}
	has(t, ok(t, there("bandit", "show", "flights-bandit")...), "route  thompson, 60 rewards", "regression", "knows all that is in the lineage")
	has(t, ok(t, there("pipelines", "show", "flights-bandit")...), "# bandits: process ", "knows all that is in the lineage")
	if r := leat(there("bandit", "show", "flights-split")...); r.code == 0 || !strings.Contains(r.err, "has no bandit") {
		t.Errorf("%+v", r)
	}
	explained := func() {
		t.Helper()
		for _, id := range ids {
			for _, x := range okJSON[struct {
				Explanations []control.Explanation `json:"explanations"`
			}](t, there("lineage", "explain-route", id)...).Explanations {
				if !x.Equal || len(x.Decisions) != 1 {
					t.Fatalf("%s: %+v", id, x)
				}
			}
		}
	}
	explained()
	// Another revision, which learns the same.
	spec, err := os.ReadFile(filepath.Join(routes, "bandit.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(t.TempDir(), "bandit.yaml")
	if err := os.WriteFile(other, bytes.Replace(spec, []byte("minimum_share: 0.05"), []byte("minimum_share: 0.25"), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	ok(t, there("apply", other)...)
	learnt(60)
	know := fmt.Sprint(status.Bandits[0].State, status.Bandits[0].Arms[0].Mean, status.Bandits[0].Arms[1].Rewards)

	if code := stop(); code != 0 {
		t.Fatalf("the server ended with %d", code)
	}
	if at, stop, err = start(data); err != nil {
		t.Fatal(err)
	}
	learnt(60)
	if now := fmt.Sprint(status.Bandits[0].State, status.Bandits[0].Arms[0].Mean, status.Bandits[0].Arms[1].Rewards); now != know {
		t.Errorf("knew %s, and knows %s", know, now)
	}
	explained()
	score("flights-bandit", "d0")
	learnt(61)
	explained()
}
