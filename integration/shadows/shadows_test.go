//go:build linux

package shadows

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/leatstream/leat/integration/child"
)

const (
	root     = "../.."
	requests = 400
)

const spec = `
apiVersion: leat/v1
kind: Pipeline
name: flights
route: {model: flight-delay}
shadows:
  - {name: trees, model: flight-boost}
`

// TestFaults: whatever becomes of the shadow's process, the primary answers the same bytes, and what the process scored
// before and after is recorded. How long the answers took is logged and not judged here: a machine of tests is noisy.
func TestFaults(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	dir := t.TempDir()
	binary, err := child.Build(ctx, root, dir, "")
	must(t, err)
	data := filepath.Join(dir, "primary")
	p := serve(t, ctx, child.Options{Binary: binary, Data: data, Args: []string{"--sync", "interval", "--groups", "primary"}})
	must(t, p.Push(ctx, filepath.Join(root, "examples", "flights", "flight-delay")))
	must(t, p.Push(ctx, filepath.Join(root, "examples", "flights", "flight-boost")))
	must(t, p.Apply(ctx, spec))
	body, err := os.ReadFile(filepath.Join(root, "examples", "flights", "flight.json"))
	must(t, err)
	life := 0
	shade := func() *child.Server {
		life++
		return serve(t, ctx, child.Options{Binary: binary, Data: filepath.Join(dir, fmt.Sprint("shadow", life)), Args: []string{
			"--groups", "shadow:trees", "--nats-url", p.NATS, "--nats-creds", filepath.Join(data, "nats")}})
	}
	want := ask(t, ctx, p, "alone", body)
	for _, c := range []struct {
		name string
		do   func(s *child.Server) // before the second half of the requests
		ends bool                  // and so does the process
	}{
		{"healthy", func(*child.Server) {}, false},
		{"asleep", func(s *child.Server) { must(t, s.Signal(syscall.SIGSTOP)) }, false},
		{"out-of-memory", func(s *child.Server) { must(t, noMoreMemory(s.PID())) }, false},
		{"aborted", func(s *child.Server) { must(t, s.Signal(syscall.SIGABRT)) }, true},
		{"killed", func(s *child.Server) { must(t, s.Signal(syscall.SIGKILL)) }, true},
	} {
		s := shade()
		recorded(t, ctx, p, c.name+"-before-", body) // until then it may still subscribe
		got := ask(t, ctx, p, c.name+"-1", body)
		c.do(s)
		got2 := ask(t, ctx, p, c.name+"-2", body)
		for i := range want.answers {
			if !bytes.Equal(got.answers[i], want.answers[i]) || !bytes.Equal(got2.answers[i], want.answers[i]) {
				t.Fatalf("%s: answer %d is\n%s\n%s\nand alone\n%s", c.name, i, got.answers[i], got2.answers[i], want.answers[i])
			}
		}
		t.Logf("%-14s p50 %v p99 %v before, p50 %v p99 %v after; alone p50 %v p99 %v", c.name, got.at(0.5), got.at(0.99), got2.at(0.5), got2.at(0.99), want.at(0.5), want.at(0.99))
		if c.ends {
			if _, err := s.Wait(ctx); err != nil {
				t.Error(err)
			}
		}
		s.Kill()
	}
	s := shade()
	recorded(t, ctx, p, "again-", body)
	must(t, s.Signal(syscall.SIGTERM))
	if code, err := s.Wait(ctx); code != 0 || err != nil {
		t.Errorf("the shadow's process ends with %d: %v\n%s", code, err, s.Log())
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func serve(t *testing.T, ctx context.Context, o child.Options) *child.Server {
	t.Helper()
	s, err := child.Start(o)
	must(t, err)
	t.Cleanup(s.Kill)
	must(t, s.Ready(ctx))
	return s
}

// noMoreMemory lets a process map nothing more than it has.
func noMoreMemory(pid int) error {
	return unix.Prlimit(pid, unix.RLIMIT_AS, &unix.Rlimit{Cur: 1 << 20, Max: 1 << 20}, nil)
}

// asked are the answers to one round of requests, without their ids, and what they took.
type asked struct {
	answers [][]byte
	took    []time.Duration
}

func (a *asked) at(share float64) time.Duration {
	slices.Sort(a.took)
	return a.took[int(share*float64(len(a.took)-1))].Round(10 * time.Microsecond)
}

func ask(t *testing.T, ctx context.Context, p *child.Server, round string, body []byte) *asked {
	t.Helper()
	a := &asked{}
	for i := range requests {
		id := fmt.Sprint(round, "-", i)
		// Each asks of another flight, so that an answer that went astray is seen.
		one := bytes.Replace(body, []byte(`"dep_delay": 20.0`), fmt.Appendf(nil, `"dep_delay": %d.0`, i%200), 1)
		start := time.Now()
		answer := post(t, ctx, p, id, one)
		a.took = append(a.took, time.Since(start))
		a.answers = append(a.answers, bytes.ReplaceAll(answer, []byte(id), []byte("ID")))
	}
	return a
}

func post(t *testing.T, ctx context.Context, p *child.Server, id string, body []byte) []byte {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.HTTP+"/v1/pipelines/flights/score", bytes.NewReader(body))
	must(t, err)
	req.Header.Set("Leat-Request-Id", id)
	r, err := http.DefaultClient.Do(req)
	must(t, err)
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	must(t, err)
	if r.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s %s", id, r.Status, b)
	}
	return b
}

// record is what is looked at in a record.
type record struct {
	Role   string `json:"role"`
	Status string `json:"status"`
	Parent string `json:"parent_id"`
	ID     string `json:"record_id"`
}

// recorded asks until a record of the shadow is there.
func recorded(t *testing.T, ctx context.Context, p *child.Server, round string, body []byte) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for i := 0; ; i++ {
		id := fmt.Sprint(round, i)
		post(t, ctx, p, id, body)
		for range 5 {
			var got struct {
				Records []record `json:"records"`
			}
			must(t, p.Do(ctx, http.MethodGet, "/v1/lineage/"+id, nil, &got))
			for _, r := range got.Records {
				if r.Role == "shadow" && r.Status == "ok" && slices.ContainsFunc(got.Records, func(o record) bool {
					return o.Role == "primary" && o.ID == r.Parent
				}) {
					return
				}
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				t.Fatalf("%s: the shadow records nothing: %v", round, ctx.Err())
			}
		}
	}
}
