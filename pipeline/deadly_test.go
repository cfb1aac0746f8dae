package pipeline_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/leatstream/leat/lineage"
	"github.com/leatstream/leat/schemas"
)

// childFolder names the folder in which TestDeadlyChild lives; only TestRowsThatKillTheProcess sets it.
const childFolder = "LEAT_TEST_CHILD_FOLDER"

const goodEvents = 60

// deadlyEvents are good ones with two among them that kill the process: one alone, one a row of three.
func deadlyEvents() []schemas.Message {
	es := numbered("in", 0, goodEvents, 3)
	alone := event("in", "key-0", "alone", textBody(-1, "kill"))
	among := event("in", "key-1", "among", []byte(`{"rows":[{"x":1001,"text":"t"},{"x":-2,"text":"kill"},{"x":1003,"text":"t"}]}`))
	return append(append(append(append([]schemas.Message{}, es[:20]...), alone), es[20:40]...), append([]schemas.Message{among}, es[40:]...)...)
}

// Two rows that kill the process while they are scored: each is found by its second death and goes to the dead letters,
// with nothing of its neighbours, though a row of the same event is one; everything else is answered.
func TestRowsThatKillTheProcess(t *testing.T) {
	dir := t.TempDir()
	kills := 0
	for {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestDeadlyChild$", "-test.timeout=60s")
		cmd.Env = append(os.Environ(), childFolder+"="+dir)
		out, err := cmd.CombinedOutput()
		if err == nil {
			t.Logf("%d deaths, then: %s", kills, out)
			break
		}
		if ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || !ws.Signaled() || ws.Signal() != syscall.SIGKILL {
			t.Fatalf("child after %d deaths: %v\n%s", kills, err, out)
		}
		if kills++; kills > 4 {
			t.Fatalf("the child dies of the same rows for ever: %d times", kills)
		}
	}
	if kills < 3 { // both in one run, then each alone
		t.Errorf("%d deaths, want 3 or 4", kills)
	}
}

// TestDeadlyChild is one life of the process that TestRowsThatKillTheProcess starts; by itself it has no folder to live in,
// and there is nothing to do.
func TestDeadlyChild(t *testing.T) {
	dir := os.Getenv(childFolder)
	if dir == "" {
		return
	}
	w := newWorldIn(t, filepath.Join(dir, "nats"))
	w.marks = filepath.Join(dir, "marks")
	p := w.start()
	p.model.onRun(func(in *schemas.Batch) error {
		for i := range in.Rows() {
			if string(in.Column(1).Text(i)) == "kill" {
				w.must(syscall.Kill(os.Getpid(), syscall.SIGKILL))
				select {}
			}
		}
		return nil
	})
	first := filepath.Join(dir, "published")
	if _, err := os.Stat(first); err != nil {
		w.must(p.client.EnsureTopic(t.Context(), "in", 2))
		p.publish(deadlyEvents()...)
		w.must(os.WriteFile(first, nil, 0o600))
	}
	p.serve("sums", topics("in", "out"))
	ms := p.outputs("out", goodEvents+1)
	p.settled("in", "sums")
	answered := map[string]schemas.Message{}
	for _, m := range ms {
		answered[m.Header.Get(schemas.HeaderRequestID)] = m
	}
	for i := range goodEvents {
		id := fmt.Sprintf("event-%d", i)
		if m, ok := answered[id]; !ok || score(t, m) != float64(i) {
			t.Errorf("%s: answered %v", id, ok)
		}
	}
	if _, ok := answered["alone"]; ok || len(answered) != goodEvents+1 {
		t.Errorf("%d answers, of the deadly one: %v", len(answered), ok)
	}
	var a struct{ Rows []*struct{ Score float64 } }
	if err := json.Unmarshal(answered["among"].Payload, &a); err != nil || len(a.Rows) != 3 || a.Rows[0].Score != 1001 || a.Rows[1] != nil || a.Rows[2].Score != 1003 {
		t.Errorf("answer to the event with one deadly row: %s", answered["among"].Payload)
	}
	dead := map[string]string{}
	for _, d := range p.dead(2) {
		dead[d.Header.Get(schemas.HeaderRequestID)] = d.Header.Get("Leat-Error")
	}
	if len(dead) != 2 || !strings.Contains(dead["alone"], "internal error") || !strings.Contains(dead["among"], "1 rows of this event") {
		t.Errorf("dead letters: %v", dead)
	}
	// The same rows from a caller: quarantined, answered, recorded.
	bad := p.ask("sums", textBody(-1, "kill"), schemas.HeaderRequestID, "asked").fails(t, schemas.Internal)
	if bad.err.ID == "" {
		t.Errorf("without an id: %s", bad.raw)
	}
	if rs, err := p.reader.Get(t.Context(), "asked", 1); err != nil || len(rs) != 1 || rs[0].Status != lineage.StatusError {
		t.Errorf("its record: %v, %v", rs, err)
	}
	p.ask("sums", body(5)).wants(t, 5)
	p.stop()
}
