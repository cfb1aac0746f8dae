package crash

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/apache/arrow/go/v15/arrow"
	"github.com/apache/arrow/go/v15/arrow/array"

	"github.com/leatstream/leat/connectors/files"
)

// jobRate keeps a job running over several kills, in rows a second; jobBurst lets many end.
const jobRate, jobBurst = 4000, 40000

type jobRequest struct {
	Pipeline  string  `json:"pipeline"`
	From      string  `json:"from"`
	To        string  `json:"to"`
	ChunkRows int     `json:"chunk_rows"`
	Throttle  float64 `json:"throttle,omitempty"`
}

type job struct {
	ID       string `json:"id"`
	To       string `json:"to"`
	Status   string `json:"status"`
	Reason   string `json:"reason"`
	Rows     int64  `json:"rows"`
	Scored   int64  `json:"scored"`
	Rejected int64  `json:"rejected"`
	Ended    bool   `json:"ended"`
}

// jobs runs one job after the other, to a file and to a topic in turn, until no more is asked. A request for a job whose
// answer was lost may have made one or not: the list of jobs tells in the end.
func (l *load) jobs() {
	for i := 0; ; i++ {
		var j job
		for {
			lf := l.stage.wait(l.done)
			if lf == nil {
				return
			}
			err := lf.Do(lf.over, http.MethodPost, "/v1/jobs", l.request(i), &j)
			if err == nil {
				break
			}
			i++ // its file may be taken
			rest(l.done, 20*time.Millisecond)
		}
		for !j.Ended {
			rest(l.done, 50*time.Millisecond)
			lf := l.stage.wait(l.done)
			if lf == nil {
				return
			}
			_ = lf.Do(lf.over, http.MethodGet, "/v1/jobs/"+j.ID, nil, &j) // a dead server is asked again
		}
	}
}

func (l *load) jobFile() string { return filepath.Join(l.dir, "rows.parquet") }

func (l *load) request(i int) *jobRequest {
	to := filepath.Join(l.dir, "scored-"+strconv.Itoa(i)+".parquet")
	if i%2 == 1 {
		to = "topic:crash.bulk-" + strconv.Itoa(i)
	}
	return &jobRequest{Pipeline: boost, From: l.jobFile(), To: to, ChunkRows: 500, Throttle: l.rate}
}

// waitJobs lifts the throttle of the jobs that run, waits until every job has ended and returns them.
func waitJobs(ctx context.Context, lf *life) ([]job, error) {
	for first := true; ; first = false {
		var list struct{ Jobs []job }
		if err := lf.Do(ctx, http.MethodGet, "/v1/jobs?limit=1000", nil, &list); err != nil {
			return nil, err
		}
		left := 0
		for _, j := range list.Jobs {
			if j.Ended {
				continue
			}
			if left++; first {
				if err := lf.Do(ctx, http.MethodPost, "/v1/jobs/"+j.ID+"/resume", map[string]any{"throttle": 0}, nil); err != nil && ctx.Err() == nil && !strings.Contains(err.Error(), " is done") {
					return nil, err
				}
			}
		}
		if left == 0 {
			return list.Jobs, nil
		}
		rest(ctx, 200*time.Millisecond)
		if ctx.Err() != nil {
			return nil, fmt.Errorf("%d jobs do not end: %w", left, ctx.Err())
		}
	}
}

// reference runs the same job without a kill and returns its file and its rows' outcomes.
func (l *load) reference(ctx context.Context, v *verdict, lf *life) (path string, rows []outcome, err error) {
	r := l.request(0)
	path = filepath.Join(l.dir, "reference.parquet")
	r.To, r.Throttle = path, 0
	var j job
	if err := lf.Do(ctx, http.MethodPost, "/v1/jobs", r, &j); err != nil {
		return "", nil, err
	}
	for !j.Ended {
		rest(ctx, 50*time.Millisecond)
		if err := lf.Do(ctx, http.MethodGet, "/v1/jobs/"+j.ID, nil, &j); err != nil {
			return "", nil, err
		}
	}
	if j.Status != "done" {
		return "", nil, fmt.Errorf("the undisturbed job is %s: %s", j.Status, j.Reason)
	}
	if _, err := os.Stat(path); err != nil {
		v.fault(ruleJobRows, "the undisturbed job %s is done, and its file is not there", j.ID)
		for ; err != nil && ctx.Err() == nil; _, err = os.Stat(path) {
			rest(ctx, 20*time.Millisecond)
		}
	}
	err = records(ctx, path, func(rec arrow.Record) error {
		b, err := rec.MarshalJSON()
		if err != nil {
			return err
		}
		var some []outcome
		err = json.Unmarshal(b, &some)
		rows = append(rows, some...)
		return err
	})
	return path, rows, err
}

// records calls fn for the records of a file.
func records(ctx context.Context, path string, fn func(arrow.Record) error) error {
	r, err := files.Open(ctx, path, files.Options{})
	if err != nil {
		return err
	}
	defer r.Close()
	for {
		rec, err := r.Next(ctx)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		err = fn(rec)
		rec.Release()
		if err != nil {
			return err
		}
	}
}

// judgeJobs holds every job against the undisturbed one.
func (l *load) judgeJobs(ctx context.Context, v *verdict, lf *life, jobs []job) (rows int64, err error) {
	path, want, err := l.reference(ctx, v, lf)
	if err != nil {
		return 0, err
	}
	for i := range jobs {
		j := &jobs[i]
		if j.Status != "done" || j.Scored != int64(len(want)) || j.Rejected != 0 {
			v.fault(ruleJobRows, "job %s is %s (%s): %d of %d rows scored, %d rejected", j.ID, j.Status, j.Reason, j.Scored, len(want), j.Rejected)
		}
		if topic, ok := strings.CutPrefix(j.To, "topic:"); ok {
			err = judgeTopic(ctx, v, lf, j, topic, want)
		} else {
			judgeFile(ctx, v, j, path)
		}
		if err == nil {
			err = judgeJobRecords(ctx, v, lf, j, want)
		}
		if err != nil {
			return 0, err
		}
		rows += j.Scored
	}
	return rows, nil
}

// judgeFile compares two files to the bit.
func judgeFile(ctx context.Context, v *verdict, j *job, reference string) {
	var want []arrow.Record
	defer func() {
		for _, r := range want {
			r.Release()
		}
	}()
	err := records(ctx, reference, func(r arrow.Record) error {
		r.Retain()
		want = append(want, r)
		return nil
	})
	n := 0
	if err == nil {
		err = records(ctx, j.To, func(r arrow.Record) error {
			if n == len(want) || !array.RecordEqual(want[n], r) {
				return fmt.Errorf("rows from %d on are not those of the undisturbed job", n*files.DefaultBatchRows)
			}
			n++
			return nil
		})
	}
	if err == nil && n < len(want) {
		err = errors.New("rows are missing at the end")
	}
	if err != nil {
		v.fault(ruleJobRows, "job %s to %s: %v", j.ID, filepath.Base(j.To), err)
	}
}

// judgeTopic wants each row once, without any folding.
func judgeTopic(ctx context.Context, v *verdict, lf *life, j *job, topic string, want []outcome) error {
	seen := make([]bool, len(want))
	n := 0
	err := readTopic(ctx, lf, topic, func(m *message) {
		got, err := m.answers()
		unit, _, _ := strings.Cut(strings.TrimPrefix(m.header("Leat-Row"), "0/"), ".")
		row, aerr := strconv.Atoi(unit)
		switch {
		case err != nil || aerr != nil || row < 0 || row >= len(want) || len(got) != 1 || m.header("Leat-Job") != j.ID:
			v.fault(ruleJobRows, "job %s: message %d/%d of %s makes no sense", j.ID, m.Partition, m.Sequence, topic)
		case seen[row]:
			v.fault(ruleJobRows, "job %s: row %d lies twice in %s", j.ID, row, topic)
		case got[0] != want[row]:
			v.fault(ruleJobRows, "job %s: row %d of %s is %v, want %v", j.ID, row, topic, got[0], want[row])
		default:
			seen[row] = true
			n++
		}
	})
	if n != len(want) {
		v.fault(ruleJobRows, "job %s: %d of %d rows lie in %s", j.ID, n, len(want), topic)
	}
	return err
}

// judgeJobRecords wants one canonical record for each row, with the outcome that was written.
func judgeJobRecords(ctx context.Context, v *verdict, lf *life, j *job, want []outcome) error {
	seen := make([]bool, len(want))
	n := 0
	err := readRecords(ctx, lf, url.Values{"run": {j.ID}}, func(r *record) {
		first, err := strconv.Atoi(r.From[strings.LastIndexByte(r.From, '/')+1:])
		row := first - 1 + r.Row
		switch {
		case err != nil || row < 0 || row >= len(want) || r.Status != "ok":
			v.fault(ruleJobRecorded, "job %s: record %s row %d from %s is %s", j.ID, r.RequestID, r.Row, r.From, r.Status)
		case seen[row]:
			v.fault(ruleJobRecorded, "job %s: row %d has two canonical records", j.ID, row)
		case r.Output != want[row]:
			v.fault(ruleJobRecorded, "job %s: row %d is recorded as %v, written as %v", j.ID, row, r.Output, want[row])
		default:
			seen[row] = true
			n++
		}
	})
	if n != len(want) {
		v.fault(ruleJobRecorded, "job %s: %d of %d rows have a record", j.ID, n, len(want))
	}
	return err
}
