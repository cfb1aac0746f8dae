package bulk

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/leatstream/leat/pipeline"
	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/api"
)

// RunRequest asks for a job. Paths are opened by the server's process: they are absolute, and below Config.Folder if
// that is set.
type RunRequest struct {
	Pipeline          string   `json:"pipeline" doc:"pipeline whose active revision is pinned"`
	From              string   `json:"from" doc:"FILE, topic:NAME[@sequence|@partition:sequence,...|@time] or lineage:PIPELINE[@time]"`
	To                string   `json:"to" doc:"FILE or topic:NAME"`
	ChunkRows         int      `json:"chunk_rows,omitempty" doc:"rows of a chunk at most"`
	Throttle          float64  `json:"throttle,omitempty" doc:"rows per second at most"`
	Carry             []string `json:"carry,omitempty" doc:"columns of the source's file to write beside the outputs; all: all"`
	ResultBytes       int64    `json:"result_bytes,omitempty" doc:"size of the job's result stream"`
	Overwrite         bool     `json:"overwrite,omitempty" doc:"replace the sink's file if it exists"`
	MixedEnvironments bool     `json:"mixed_environments,omitempty" doc:"let workers of other runtimes or CPU features take part"`
}

// ResumeRequest lets a paused or failed job go on, or changes a running one. Zero fields change nothing.
type ResumeRequest struct {
	ID                string   `path:"id"`
	ResultBytes       int64    `json:"result_bytes,omitempty" doc:"new size of the job's result stream"`
	Throttle          *float64 `json:"throttle,omitempty" doc:"new bound of rows per second; 0: none"`
	MixedEnvironments *bool    `json:"mixed_environments,omitempty" doc:"let workers of other runtimes or CPU features take part"`
}

// IDRequest names a job.
type IDRequest struct {
	ID string `path:"id"`
}

// ListRequest selects jobs.
type ListRequest struct {
	Status   string `query:"status" doc:"pending, running, paused, done, failed or cancelled"`
	Pipeline string `query:"pipeline"`
	Limit    int    `query:"limit" doc:"newest so many; default 100"`
}

// JobList is the answer of jobs.list, newest first.
type JobList struct {
	Jobs []View `json:"jobs"`
}

// View is a job as people ask for it.
type View struct {
	Job
	Progress float64 `json:"progress"`            // 0 to 1; 0 while the total is unknown
	Left     string  `json:"left,omitempty"`      // estimated time to the end: "1m30s"
	RowsLeft int64   `json:"rows_left"`           // of the source, estimated from what is passed; 0 while the total is unknown
	EventLag float64 `json:"event_lag,omitempty"` // seconds of event time to the end: the most of all partitions
	Exit     int     `json:"exit"`                // exit code of a command that waited for the job
	Ended    bool    `json:"ended"`               // done, failed, cancelled, or paused until somebody resumes it
	Elapsed  float64 `json:"elapsed,omitempty"`   // seconds since the start, or from start to end

	Partitions []PartitionView `json:"partitions,omitempty"` // of a topic; jobs.list leaves them out
}

func view(j *Job, now time.Time) View {
	v := View{Job: *j, Exit: j.ExitCode(), Ended: j.Final() || j.Status == Paused && !j.Auto}
	if j.Total > 0 {
		v.Progress = min(float64(j.Passed)/float64(j.Total), 1)
	}
	if j.Status == Done {
		v.Progress = 1
	}
	v.RowsLeft = j.remaining()
	if j.Ends.Ranges != nil {
		v.Partitions = j.partitions()
		for i := range v.Partitions {
			v.EventLag = max(v.EventLag, v.Partitions[i].EventLag)
		}
	}
	if d, ok := j.Left(); ok {
		v.Left = d.String()
	}
	switch {
	case j.Started.IsZero():
	case j.Finished.IsZero():
		v.Elapsed = max(now.Sub(j.Started).Seconds(), 0)
	default:
		v.Elapsed = max(j.Finished.Sub(j.Started).Seconds(), 0)
	}
	return v
}

// Operations is what an operator can ask of jobs.
func (s *Service) Operations() []api.Operation {
	return []api.Operation{
		api.Op("jobs.run", "POST", "/v1/jobs", api.Admin, "Start a job: score a file, a topic or the lineage", s.RunJob),
		api.Op("jobs.list", "GET", "/v1/jobs", api.Read, "List jobs, newest first", s.List),
		api.Op("jobs.show", "GET", "/v1/jobs/{id}", api.Read, "Show a job and its progress", s.Show),
		api.Op("jobs.cancel", "POST", "/v1/jobs/{id}/cancel", api.Admin, "Cancel a job and drop its results", s.Cancel),
		api.Op("jobs.resume", "POST", "/v1/jobs/{id}/resume", api.Admin, "Let a paused or failed job go on, or change a running one", s.Resume),
	}
}

// RunJob makes a job; it begins at once. The ends of its source are fixed now. NotFound: the pipeline or the source;
// Invalid names the field.
func (s *Service) RunJob(ctx context.Context, r *RunRequest) (*View, error) {
	j, rev, err := s.plan(ctx, r)
	if err != nil {
		return nil, err
	}
	// The lease first: the process that saw the files begins the job.
	l := s.newLease(j.ID)
	if err := l.try(ctx); err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.mu.leases[j.ID] = l
	s.mu.Unlock()
	if err := s.store.create(ctx, j, rev); err != nil {
		s.mu.Lock()
		delete(s.mu.leases, j.ID)
		s.mu.Unlock()
		l.release(ctx)
		return nil, err
	}
	s.log.Info("job made", "job", j.ID, "pipeline", j.Pipeline, "from", j.From, "to", j.To)
	v := view(j, time.Now())
	return &v, nil
}

// plan checks a request and fills in what it leaves open.
func (s *Service) plan(ctx context.Context, r *RunRequest) (*Job, *pipeline.Revision, error) {
	const op = "bulk.RunJob"
	from, err := parseFrom(r.From)
	if err != nil {
		return nil, nil, err
	}
	to, err := parseTo(r.To)
	if err != nil {
		return nil, nil, err
	}
	if err := checkNumbers(op, r); err != nil {
		return nil, nil, err
	}
	rev, ok := s.deps.Pipelines.Active(r.Pipeline)
	if !ok {
		return nil, nil, schemas.FieldErrorf(schemas.NotFound, op, "pipeline", "no pipeline %.80q is active here", r.Pipeline)
	}
	if to.kind == shadowLocation {
		if from.kind != lineageLocation || from.name != r.Pipeline {
			return nil, nil, schemas.FieldErrorf(schemas.Invalid, op, "from", "%.80q: a shadow catches up with its own pipeline: want lineage:%s", r.From, r.Pipeline)
		}
		p, err := s.deps.Pipelines.PinShadow(ctx, rev, to.name)
		if schemas.KindOf(err) == schemas.NotFound && err != nil {
			return nil, nil, schemas.FieldErrorf(schemas.NotFound, op, "to", "%w", err)
		}
		if err != nil {
			return nil, nil, err
		}
		rev = p.Revision()
		p.Close()
	}
	j := &Job{
		ID: strings.ToLower(ulid.Make().String()), Pipeline: r.Pipeline, Revision: rev.Revision, States: s.deps.Pipelines.BanditStates(r.Pipeline), From: r.From, To: r.To,
		Status: Pending, Created: time.Now().UTC(), PieceRows: s.config.PieceRows, Throttle: r.Throttle,
		Carry: r.Carry, Overwrite: r.Overwrite, ResultBytes: r.ResultBytes, MixedEnvironments: r.MixedEnvironments,
	}
	if to.kind == fileLocation {
		if err := s.checkTarget(to.name, r.Overwrite); err != nil {
			return nil, nil, err
		}
	} else if from.kind == topicLocation && from.name == to.name {
		return nil, nil, schemas.FieldErrorf(schemas.Invalid, op, "to", "topic %s is the source too", to.name)
	}
	if err := s.checkCarry(ctx, j, from, to); err != nil {
		return nil, nil, err
	}
	if j.Ends, err = s.endsOf(ctx, from, rev.Signature.Inputs); err != nil {
		return nil, nil, err
	}
	want := s.config.ChunkRows
	if r.ChunkRows > 0 {
		want = r.ChunkRows
	}
	j.ChunkRows = chunkRows(want, rev.Signature, r.Throttle, j.Ends.total())
	j.Total = j.Ends.total()
	if j.ResultBytes == 0 {
		j.ResultBytes = resultBytes(s.config.ResultBytes, rev.Signature.Outputs, j.Ends.Rows)
	}
	return j, rev, nil
}

func checkNumbers(op string, r *RunRequest) error {
	switch {
	case r.ChunkRows < 0 || r.ChunkRows > 1<<20:
		return schemas.FieldErrorf(schemas.Invalid, op, "chunk_rows", "%d: want 1 to %d, or nothing", r.ChunkRows, 1<<20)
	case !(r.Throttle >= 0 && r.Throttle < 1e12):
		return schemas.FieldErrorf(schemas.Invalid, op, "throttle", "%v: want rows per second, or 0 for no bound", r.Throttle)
	case r.ResultBytes != 0 && r.ResultBytes < minResultBytes:
		return schemas.FieldErrorf(schemas.Invalid, op, "result_bytes", "%d: want at least %d", r.ResultBytes, minResultBytes)
	}
	return nil
}

// checkTarget reports a file that could not be written at the end.
func (s *Service) checkTarget(path string, overwrite bool) error {
	const op = "bulk.RunJob"
	if err := s.deps.Files.CheckFormat(path); err != nil {
		return schemas.FieldErrorf(schemas.Invalid, op, "to", "%w", err)
	}
	if err := s.allow("to", path); err != nil {
		return err
	}
	if st, err := os.Stat(filepath.Dir(path)); err != nil {
		return fileError("to", filepath.Dir(path), err)
	} else if !st.IsDir() {
		return schemas.FieldErrorf(schemas.Invalid, op, "to", "%s is no folder", filepath.Dir(path))
	}
	if id := s.writerOf(path); id != "" {
		return schemas.FieldErrorf(schemas.Invalid, op, "to", "job %s writes %s: wait for it, or cancel it", id, path)
	}
	st, err := os.Lstat(path)
	switch {
	case err != nil:
		return nil // it is not there
	case !st.Mode().IsRegular():
		return schemas.FieldErrorf(schemas.Invalid, op, "to", "%s is there and is no regular file", path)
	case !overwrite:
		return schemas.FieldErrorf(schemas.Invalid, op, "to", "%s exists: choose another name, or --overwrite", path)
	}
	return nil
}

// writerOf returns the job that is going to write a file, "" if this process knows of none.
func (s *Service) writerOf(path string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, w := range s.mu.jobs {
		if to, err := parseTo(w.job.To); err == nil && to.kind == fileLocation && to.name == path && !w.job.Final() {
			return id
		}
	}
	return ""
}

// checkCarry opens the carried columns once.
func (s *Service) checkCarry(ctx context.Context, j *Job, from, to location) error {
	const op = "bulk.RunJob"
	if len(j.Carry) == 0 {
		return nil
	}
	if from.kind != fileLocation || to.kind != fileLocation {
		return schemas.FieldErrorf(schemas.Invalid, op, "carry", "columns are carried from a file to a file only")
	}
	probe := *j
	probe.ChunkRows = 1
	c, err := s.openCarrier(ctx, &probe)
	if err != nil {
		return schemas.FieldErrorf(schemas.KindOf(err), op, "carry", "%w", err)
	}
	c.close()
	return nil
}

// List returns jobs, newest first.
func (s *Service) List(ctx context.Context, r *ListRequest) (*JobList, error) {
	if r.Limit <= 0 {
		r.Limit = 100
	}
	ids, err := s.store.list(ctx)
	if err != nil {
		return nil, err
	}
	out := &JobList{Jobs: []View{}}
	now := time.Now()
	for i := len(ids) - 1; i >= 0 && len(out.Jobs) < r.Limit; i-- {
		j, _, err := s.store.get(ctx, ids[i])
		if schemas.KindOf(err) == schemas.NotFound && err != nil {
			continue // deleted meanwhile
		}
		if err != nil {
			return nil, err
		}
		if (r.Status == "" || string(j.Status) == r.Status) && (r.Pipeline == "" || j.Pipeline == r.Pipeline) {
			v := view(j, now)
			v.Partitions = nil
			out.Jobs = append(out.Jobs, v)
		}
	}
	return out, nil
}

// Show returns one job.
func (s *Service) Show(ctx context.Context, r *IDRequest) (*View, error) {
	j, _, err := s.store.get(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	v := view(j, time.Now())
	return &v, nil
}

// Cancel ends a job and drops its results. A job that has ended is left as it is, but for a failed one, whose results
// are dropped.
func (s *Service) Cancel(ctx context.Context, r *IDRequest) (*View, error) {
	j, err := s.store.update(ctx, r.ID, func(j *Job) error {
		if j.Status == Done {
			return schemas.FieldErrorf(schemas.Invalid, "bulk.Cancel", "id", "job %s is done", j.ID)
		}
		if j.Status == Cancelled {
			return errUnchanged
		}
		j.Status, j.Auto, j.Reason, j.Rate, j.Finished = Cancelled, false, "", 0, time.Now().UTC()
		j.Generation++
		return nil
	})
	if err != nil {
		return nil, err
	}
	v := view(j, time.Now())
	return &v, nil
}

// Resume lets a job go on.
func (s *Service) Resume(ctx context.Context, r *ResumeRequest) (*View, error) {
	const op = "bulk.Resume"
	j, err := s.store.update(ctx, r.ID, func(j *Job) error {
		if j.Status == Done || j.Status == Cancelled {
			return schemas.FieldErrorf(schemas.Invalid, op, "id", "job %s is %s", j.ID, j.Status)
		}
		n := RunRequest{ResultBytes: r.ResultBytes}
		if r.Throttle != nil {
			n.Throttle = *r.Throttle
			j.Throttle = n.Throttle
		}
		if err := checkNumbers(op, &n); err != nil {
			return err
		}
		if r.ResultBytes > 0 {
			j.ResultBytes = r.ResultBytes
		}
		if r.MixedEnvironments != nil {
			j.MixedEnvironments = *r.MixedEnvironments
		}
		j.Generation++
		if j.Status != Pending {
			j.Status = Running
		}
		j.Auto, j.Reason, j.Finished = false, "", time.Time{}
		return nil
	})
	if err != nil {
		return nil, err
	}
	v := view(j, time.Now())
	return &v, nil
}
