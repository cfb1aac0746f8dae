package crash

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/leatstream/leat/integration/child"
)

// config makes a job's next owner wait less than a life lasts for the lease of the last one, and a topic reserve less:
// hundreds of rounds make a topic for every other job, and no room for them is not what is tested here.
const config = "jobs: {lease_renew: 50ms, lease_expiry: 200ms, progress: 100ms}\nnats: {topic_bytes: 268435456}\n"

// trial is one series of kills on one data folder.
type trial struct {
	t      *testing.T
	ctx    context.Context
	binary string
	env    []string
	data   string
	config string
	rand   *rand.Rand
	stage  *stage
	e      *evidence
	v      *verdict

	kills, terms, startKills int
	up, starting, slowest    time.Duration
}

func newTrial(t *testing.T, ctx context.Context, binary string, seed uint64, env ...string) *trial {
	t.Helper()
	dir := t.TempDir()
	tr := &trial{
		t: t, ctx: ctx, binary: binary, env: env, data: filepath.Join(dir, "data"), config: filepath.Join(dir, "leat.yaml"),
		rand: rand.New(rand.NewPCG(seed, 0)), stage: newStage(), e: newEvidence(), v: newVerdict(),
	}
	if err := os.WriteFile(tr.config, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	return tr
}

// spawn starts a process that the test will end.
func (tr *trial) spawn() *child.Server {
	s, err := child.Start(child.Options{Binary: tr.binary, Data: tr.data, Config: tr.config, Env: tr.env})
	if err != nil {
		tr.t.Fatal(err)
	}
	tr.t.Cleanup(s.Kill)
	return s
}

// begin starts a life. The server must come up whatever the last one left behind.
func (tr *trial) begin() *life {
	tr.t.Helper()
	start := time.Now()
	s := tr.spawn()
	ctx, cancel := context.WithTimeout(tr.ctx, 30*time.Second)
	defer cancel()
	if err := s.Ready(ctx); err != nil {
		tr.t.Fatal(err)
	}
	took := time.Since(start)
	tr.starting += took
	tr.slowest = max(tr.slowest, took)
	l, err := newLife(tr.ctx, s)
	if err != nil {
		tr.t.Fatalf("%v\n%s", err, s.Log())
	}
	return l
}

// round lets the server live for a while under load and ends it: mostly with SIGKILL, sometimes with SIGTERM; sometimes
// the starts after it are killed too.
func (tr *trial) round() {
	l := tr.begin()
	tr.stage.set(l)
	lives := time.Duration(50+tr.rand.IntN(1150)) * time.Millisecond
	term, again := tr.rand.IntN(7) == 0, tr.rand.IntN(5) == 0
	select {
	case <-time.After(lives):
	case <-l.Exited():
		tr.t.Fatalf("leat serve ended by itself\n%s", l.Log())
	}
	tr.up += lives
	if term {
		tr.terms++
		tr.terminate(l)
	} else {
		tr.kills++
		l.Kill()
	}
	tr.stage.set(nil)
	l.close()
	if again {
		for range 2 {
			s := tr.spawn()
			select {
			case <-time.After(time.Duration(tr.rand.IntN(250)) * time.Millisecond):
			case <-s.Exited():
				tr.t.Fatalf("leat serve ended by itself at its start\n%s", s.Log())
			}
			tr.startKills++
			s.Kill()
		}
	}
}

func (tr *trial) terminate(l *life) {
	if err := l.Signal(syscall.SIGTERM); err != nil {
		tr.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(tr.ctx, 45*time.Second)
	defer cancel()
	if code, err := l.Wait(ctx); err != nil || code != 0 {
		tr.v.fault(ruleExit, "exit status %d, %v\n%s", code, err, l.Log())
		l.Kill()
	}
}

// run does the rounds and judges.
func (tr *trial) run(rounds int, seed uint64, rate float64) {
	t := tr.t
	tr.setUp()
	ld, err := startLoad(tr.ctx, tr.stage, tr.e, seed, t.TempDir(), rate)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ld.stop(); ld.group.Wait() })
	start := time.Now()
	for range rounds {
		tr.round()
	}
	took := time.Since(start)
	// The last life ends by no kill; the load goes on for a moment, so that it is seen to work.
	l := tr.begin()
	tr.stage.set(l)
	rest(tr.ctx, 300*time.Millisecond)
	ld.stop()
	ld.group.Wait()
	tr.settle(ld, l)
	t.Logf("seed %d: %d rounds in %.1f s: %d SIGKILL, %d SIGTERM, %d kills at the start; up %.1f s, started in %.0f ms on average, %.0f ms at most",
		seed, rounds, took.Seconds(), tr.kills, tr.terms, tr.startKills, tr.up.Seconds(),
		float64(tr.starting.Milliseconds())/float64(rounds+1), float64(tr.slowest.Milliseconds()))
	tr.terminate(l)
	l.close()
}

func (tr *trial) setUp() {
	l := tr.begin()
	defer l.close()
	for _, m := range models {
		if err := l.Push(tr.ctx, filepath.Join(root, "examples", "flights", m)); err != nil {
			tr.t.Fatalf("%v\n%s", err, l.Log())
		}
	}
	if err := l.Apply(tr.ctx, streamSpec); err != nil {
		tr.t.Fatal(err)
	}
	tr.terminate(l)
}

// settle drains, and holds what was seen against what is there.
func (tr *trial) settle(ld *load, l *life) {
	t := tr.t
	ctx, cancel := context.WithTimeout(tr.ctx, 2*time.Minute)
	defer cancel()
	begun := time.Now()
	err := drained(ctx, l)
	topic := time.Since(begun)
	var jobs []job
	if err == nil {
		jobs, err = waitJobs(ctx, l)
	}
	if err != nil {
		tr.v.fault(rulePromptlyDrained, "%v\n%s", err, l.Log())
		return
	}
	drain := time.Since(begun)

	truth, err := readTruth(ctx, l, tr.data)
	if err != nil {
		t.Fatal(err)
	}
	judge(tr.v, tr.e, truth, stream)
	rows, err := ld.judgeJobs(ctx, tr.v, l, jobs)
	if err != nil {
		t.Fatal(err)
	}
	left, err := filepath.Glob(filepath.Join(ld.dir, ".*.tmp"))
	if err != nil {
		t.Fatal(err)
	}
	if len(left) > 0 {
		tr.v.fault(ruleNoLeftovers, "%d files: %v", len(left), left)
	}
	superseded := 0
	for i := range truth.records {
		if truth.records[i].Superseded {
			superseded++
		}
	}
	t.Logf("%d requests asked, %d replies seen, %d asked again, refused %v; %d events acknowledged, %d given up; %d outputs, %d dead letters, %d records (%d superseded); %d jobs of %d rows, %d temporary files of killed jobs; drained in %.1f s (topic in %.1f s), judged in %.1f s",
		tr.e.asked, len(tr.e.replies), tr.e.repeats, tr.e.refused, len(tr.e.events), tr.e.unsure, len(truth.outputs), len(truth.dead),
		len(truth.records), superseded, len(jobs), rows, len(left), drain.Seconds(), topic.Seconds(), time.Since(begun).Seconds()-drain.Seconds())
}

// String tells what is broken.
func (v *verdict) String() string {
	var b strings.Builder
	rules := make([]string, 0, len(v.broken))
	for r := range v.broken {
		rules = append(rules, r)
	}
	slices.Sort(rules)
	for _, r := range rules {
		fmt.Fprintf(&b, "%s: broken %d times\n", r, v.counts[r])
		for _, s := range v.broken[r] {
			fmt.Fprintf(&b, "    %s\n", s)
		}
	}
	return b.String()
}

func TestCrash(t *testing.T) {
	tr := newTrial(t, t.Context(), *binary, *seed)
	tr.run(*rounds, *seed, jobRate)
	if len(tr.v.broken) > 0 {
		t.Errorf("seed %d:\n%s", *seed, tr.v)
	}
	// A test in which nothing happened proves nothing.
	for _, way := range []string{"asked over nats", "asked over http", "published over nats", "published over http"} {
		if n := tr.e.by[way]; n < 5**rounds {
			t.Errorf("%s: %d in %d rounds: the load does not reach the server", way, n, *rounds)
		}
	}
}
