package load

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/nats-io/nats.go"
)

// Loop bounds one run: it ends after Duration or after Requests, whichever comes first.
type Loop struct {
	InFlight int           // slots, each with one request under way
	Warmup   time.Duration // answers before its end are not measured
	Duration time.Duration // of the measured part
	Requests int64         // 0: bounded by Duration alone; counted over warm-up and measured part
	Answer   Check         // nil: any answer will do
}

// Check looks at an answer's payload; a non-nil error counts as a failure and the first one is kept. It must not keep
// the payload and is called from several goroutines.
type Check func(payload []byte) error

// Validate reports what is wrong with l.
func (l Loop) Validate() error {
	switch {
	case l.InFlight < 1 || l.InFlight > 1<<16:
		return fmt.Errorf("load: in flight %d: want 1 to 65536", l.InFlight)
	case l.Duration <= 0:
		return fmt.Errorf("load: duration %v: want more than 0", l.Duration)
	case l.Warmup < 0 || l.Requests < 0:
		return fmt.Errorf("load: warm-up and requests must not be negative")
	}
	return nil
}

// Result is what a run measured. Latencies are in nanoseconds.
type Result struct {
	Answers int64         // answered in the measured part, failures not counted
	Failed  int64         // refused, malformed or failing Check, at any time
	First   error         // of the failures
	Elapsed time.Duration // of the measured part
	Latency *hdrhistogram.Histogram
}

// histogram covers 1 us to 60 s at three digits: 0.1 % of error is far below the noise of a shared machine.
func histogram() *hdrhistogram.Histogram {
	return hdrhistogram.New(int64(time.Microsecond), int64(time.Minute), 3)
}

// Rate is answers a second.
func (r *Result) Rate() float64 {
	if r.Elapsed <= 0 {
		return 0
	}
	return float64(r.Answers) / r.Elapsed.Seconds()
}

// Quantile returns the latency below which q percent of the answers came.
func (r *Result) Quantile(q float64) time.Duration {
	return time.Duration(r.Latency.ValueAtQuantile(q))
}

// Err is an error when anything failed, or nothing was answered.
func (r *Result) Err() error {
	switch {
	case r.Failed > 0:
		return fmt.Errorf("load: %d of %d requests failed, the first with: %w", r.Failed, r.Failed+r.Answers, r.First)
	case r.Answers == 0:
		return fmt.Errorf("load: no answer in %v", r.Elapsed)
	}
	return nil
}

// tally counts for one goroutine.
type tally struct {
	Result
	begin, end time.Time // of the measured part
	last       time.Time // of the latest answer
}

func newTally(start time.Time, l Loop) *tally {
	begin := start.Add(l.Warmup)
	return &tally{Result: Result{Latency: histogram()}, begin: begin, end: begin.Add(l.Duration)}
}

// answered notes one answer that was asked for at asked and came at now.
func (t *tally) answered(asked, now time.Time, err error) {
	t.last = now
	if err != nil {
		t.Failed++
		if t.First == nil {
			t.First = err
		}
		return
	}
	if now.Before(t.begin) || now.After(t.end) {
		return
	}
	t.Answers++
	_ = t.Latency.RecordValue(int64(now.Sub(asked))) // out of range only beyond a minute, which the client times out first
}

// close ends the measured part: at its end, or at the last answer if the requests ran out before.
func (t *tally) close() *Result {
	end := t.end
	if t.last.Before(end) {
		end = t.last
	}
	t.Elapsed = end.Sub(t.begin)
	return &t.Result
}

// merge joins the tallies of several goroutines that ran at the same time.
func merge(ts []*tally) *Result {
	all := ts[0]
	for _, t := range ts[1:] {
		all.Answers += t.Answers
		all.Failed += t.Failed
		if all.First == nil {
			all.First = t.First
		}
		if t.last.After(all.last) {
			all.last = t.last
		}
		all.Latency.Merge(t.Latency)
	}
	return all.close()
}

// giveUp is how long after the end of a loop an answer may take.
const giveUp = 10 * time.Second

// closedLoop keeps l.InFlight callers asking, each on a goroutine of its own. Of the two errors of ask the first is what is wrong with
// an answer, which counts as a failure; the second ends the run.
func closedLoop(ctx context.Context, payloads [][]byte, l Loop,
	ask func(ctx context.Context, slot int, payload []byte) (failure, err error)) (*Result, error) {
	if err := l.Validate(); err != nil {
		return nil, err
	}
	start := time.Now()
	ctx, cancel := context.WithDeadlineCause(ctx, start.Add(l.Warmup+l.Duration+giveUp),
		fmt.Errorf("load: requests unanswered %v after the end of the loop", giveUp))
	defer cancel()
	tallies := make([]*tally, l.InFlight)
	errs := make([]error, l.InFlight)
	var sent atomic.Int64
	var wg sync.WaitGroup
	for i := range tallies {
		t := newTally(start, l)
		tallies[i] = t
		wg.Go(func() {
			for next := i * len(payloads) / l.InFlight; ; next++ {
				asked := time.Now()
				if asked.After(t.end) || l.Requests > 0 && sent.Add(1) > l.Requests {
					return
				}
				failure, err := ask(ctx, i, payloads[next%len(payloads)])
				if err != nil {
					errs[i] = err
					return
				}
				t.answered(asked, time.Now(), failure)
				if errors.Is(failure, nats.ErrNoResponders) {
					return // nobody is there: the others see it too
				}
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return merge(tallies), nil
}
