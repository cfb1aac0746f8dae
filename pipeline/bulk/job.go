package bulk

import (
	"time"

	"github.com/leatstream/leat/pipeline"
	"github.com/leatstream/leat/schemas"
)

// Status is where a job stands.
type Status string

// The statuses. Done, Failed and Cancelled are final, but a failed job can be resumed.
const (
	Pending   Status = "pending"   // made; no process has begun it
	Running   Status = "running"   // chunks are fed, scored or written
	Paused    Status = "paused"    // see Job.Reason and Job.Auto; nothing is lost
	Done      Status = "done"      // the sink is complete
	Failed    Status = "failed"    // see Job.Reason; the results so far are kept for a resume
	Cancelled Status = "cancelled" // by a user; the results so far are dropped
)

// Statuses lists all, in the order of a job's life.
var Statuses = []Status{Pending, Running, Paused, Done, Failed, Cancelled}

// Job is a bulk run: the value of the key job.<id>, changed by compare-and-set alone.
type Job struct {
	ID       string `json:"id"`
	Pipeline string `json:"pipeline"`
	Revision string `json:"revision"` // digest, pinned when the job was made
	// States is what the revision's bandits knew when the job was made, by node path: positions of the lineage. They learn nothing
	// while it runs, so that a chunk that is scored again gets the same arms.
	States map[string]uint64 `json:"states,omitempty"`
	From   string            `json:"from"` // FILE, topic:NAME[@sequence|@partition:sequence,...|@time] or lineage:PIPELINE[@time]
	To     string            `json:"to"`   // FILE, topic:NAME or shadow:NAME

	Status   Status    `json:"status"`
	Reason   string    `json:"reason,omitempty"` // of a pause, a failure or a wait
	Auto     bool      `json:"auto,omitempty"`   // the pause ends by itself
	Created  time.Time `json:"created"`
	Started  time.Time `json:"started,omitzero"`
	Finished time.Time `json:"finished,omitzero"`

	ChunkRows   int      `json:"chunk_rows"`          // rows of a chunk at most
	PieceRows   int      `json:"piece_rows"`          // rows that are scored at once, from a chunk's first row on
	Throttle    float64  `json:"throttle,omitempty"`  // rows/s at most; 0: no bound
	Carry       []string `json:"carry,omitempty"`     // source columns that are written beside the outputs; ["all"]: all
	Overwrite   bool     `json:"overwrite,omitempty"` // the sink's file may exist
	ResultBytes int64    `json:"result_bytes"`        // bound of the result stream

	// MixedEnvironments lets workers of another runtime or other CPU features take part: then bits may differ.
	MixedEnvironments bool                 `json:"mixed_environments,omitempty"`
	Environment       pipeline.Environment `json:"environment,omitzero"` // decides bits: a chunk is scored in this one

	Ends       Ends              `json:"ends"`
	Generation int               `json:"generation,omitempty"` // counts resumes
	SinkAt     map[int32]uint64  `json:"sink_at,omitempty"`    // topic sinks without a ledger: last sequence of each partition that is known to be written
	Reached    map[int32]Reached `json:"reached,omitempty"`    // of a stored source, by partition
	Ledger     bool              `json:"ledger,omitempty"`     // the sink's topic was told how far the job is, and keeps that
	Owner      string            `json:"owner,omitempty"`      // coordinator that counts
	Cleaned    bool              `json:"cleaned,omitempty"`    // queue and results of a final job are dropped

	Counters
}

// Counters are what a job has done so far.
type Counters struct {
	Chunks   int64   `json:"chunks"`         // in all; 0 until it is known
	Written  int64   `json:"written"`        // chunks in the sink
	Rows     int64   `json:"rows"`           // of the source, in the sink or rejected or skipped
	Total    int64   `json:"total"`          // rows or sequences of the source; 0 until it is known
	Passed   int64   `json:"passed"`         // of Total: what the written chunks cover
	Scored   int64   `json:"scored"`         // rows in the sink
	Rejected int64   `json:"rejected"`       // bad rows: the job ends with exit code 3 if there are any
	Skipped  int64   `json:"skipped"`        // lineage inputs that were not recorded whole: same
	Rate     float64 `json:"rate,omitempty"` // rows/s over the last seconds

	// EventTime is that of the newest row of a stored source that is done.
	EventTime time.Time `json:"event_time,omitzero"`
}

// environment writes an environment for people.
func environment(e pipeline.Environment) string { return e.Runtime + " on " + e.CPU }

// Ends fix what the source is, when the job is made: rows that come later are not of this job.
type Ends struct {
	Rows     int64     `json:"rows,omitempty"`    // of a file that tells
	Size     int64     `json:"size,omitempty"`    // of the file: a change ends the job
	Modified time.Time `json:"modified,omitzero"` // of the file: same
	Ranges   []Range   `json:"ranges,omitempty"`  // of a topic, by partition; of the lineage, one
	Stream   string    `json:"stream,omitempty"`  // name of the source in positions
}

// Range is a stored range, both ends included; Last < First means empty.
type Range struct {
	Partition int32  `json:"partition"`
	First     uint64 `json:"first"`
	Last      uint64 `json:"last"`

	FirstTime time.Time `json:"first_time,omitzero"` // event time of the first message, as far as it was found
	LastTime  time.Time `json:"last_time,omitzero"`  // same, of the last one
}

// len returns how many sequences the range holds.
func (r Range) len() int64 {
	if r.Last < r.First {
		return 0
	}
	return int64(r.Last - r.First + 1)
}

// Final reports whether the job has ended.
func (j *Job) Final() bool {
	return j.Status == Done || j.Status == Failed || j.Status == Cancelled
}

// live reports whether the job has a coordinator at work.
func (j *Job) live() bool {
	return j.Status == Running || j.Status == Paused && j.Auto
}

// ExitCode is what the CLI ends with: 0 done, 3 done with rejected or skipped rows, 1 otherwise.
func (j *Job) ExitCode() int {
	switch {
	case j.Status != Done:
		return 1
	case j.Rejected > 0 || j.Skipped > 0:
		return 3
	}
	return 0
}

// Left estimates the time to the end; ok is false while the total or the rate is unknown.
func (j *Job) Left() (d time.Duration, ok bool) {
	if j.Final() || j.Total <= 0 || j.Rate <= 0 || j.Passed <= 0 || j.Rows <= 0 {
		return 0, false
	}
	rows := float64(j.Total-j.Passed) * float64(j.Rows) / float64(j.Passed)
	return time.Duration(rows / j.Rate * float64(time.Second)).Round(time.Second), true
}

// queueName is the job's queue; resultLog its result stream.
func (j *Job) queueName() string { return "job-" + j.ID }

// MaxChunks bounds the subjects of a result stream (SEMANTICS 5).
const MaxChunks = 1_000_000

// limits of a message: below NATS's 1 MiB with headers.
const (
	maxChunkBytes  = 768 << 10 // columns of a chunk before it is cut
	aimChunkBytes  = 512 << 10 // what ChunkRows is chosen for
	maxResultBytes = 512 << 10 // columns of a result before it goes in parts
)

// chunkRows chooses the rows of a chunk so that inputs and outputs fit a message, and all chunks fit a stream.
func chunkRows(want int, sig schemas.Signature, throttle float64, total int64) int {
	n := min(want, aimChunkBytes/rowWidth(sig.Inputs), aimChunkBytes/rowWidth(sig.Outputs))
	if throttle > 0 { // a chunk a second, so that the pace is even
		n = min(n, int(throttle)+1)
	}
	n = max(n, 1)
	for int64(n) < total && (total+int64(n)-1)/int64(n) > MaxChunks {
		n *= 2
	}
	return n
}

// resultBytes chooses the size of a job's result stream, which the store reserves: no more than the rows of a file can
// take, even if all of them are bad.
func resultBytes(most int64, out *schemas.Schema, rows int64) int64 {
	const perBad, spare = maxReason + 100, 16 << 20
	width := int64(max(2*rowWidth(out), perBad))
	if rows == 0 || rows > (most-spare)/width {
		return most
	}
	return rows*width + spare
}

// rowWidth estimates the bytes of a row.
func rowWidth(s *schemas.Schema) int {
	const text = 32 // a guess for strings; the cutter measures
	n := 16
	for i := range s.Len() {
		f := s.Field(i)
		size := f.Type.Size()
		if size == 0 {
			size = text
		}
		n += size * f.Width()
	}
	return n
}
