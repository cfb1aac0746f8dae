package lineage

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/leatstream/leat/schemas"
)

// The formats of an export.
const (
	FormatParquet = "parquet" // one row a record, or a piece of feedback; input and output are structs of named columns
	FormatNDJSON  = "ndjson"  // one View, or FeedbackView, a line
)

// Exported says what an export wrote.
type Exported struct {
	Records  int64  `json:"records"`
	Feedback int64  `json:"feedback,omitempty"` // pieces of it that have a row, or a line, of their own
	Ranges   Ranges `json:"ranges,omitempty"`   // what it covers whole; none if it was filtered by more than time
}

// Export writes what a query selects to w, up to what the logs hold when it is called (Query.Follow is ignored), streaming:
// memory is bounded by a row group, not by the logs.
//
// In Parquet, records of different schemas share one file: input and output have the union of all columns by name, null
// where a record has none of them. Two columns of one name and of different types become two: the second is called
// name_type ("amount_float64"). To know the union, the logs are read twice.
//
// An export that covers the logs, so that they may be pruned, holds their feedback too: each piece in its place, repeats also,
// known decision or not. In NDJSON it is a FeedbackView; in Parquet it is the struct said, with the columns of FeedbackSchema,
// and of the other columns its place (position, sequence, index, appended) and superseded. There is no such column where nothing was
// said.
//
// With Query.Join a record has what was said of it: in Parquet as label_number, label_text, label_bool, reward and comment, which
// are null where nothing was, and feedback, how often.
func (r *StreamReader) Export(ctx context.Context, q Query, format string, w io.Writer) (Exported, error) {
	q.Follow = false
	if err := q.Check(); err != nil {
		return Exported{}, err
	}
	var j *join
	if q.Join {
		var err error
		if j, err = r.join(ctx, Query{Pipeline: q.Pipeline}, func(*Feedback) bool { return true }); err != nil {
			return Exported{}, err
		}
	}
	scans, err := r.exportScans(ctx, q)
	if err != nil {
		return Exported{}, err
	}
	var ex Exported
	switch format {
	case FormatNDJSON:
		ex, err = r.exportJSON(ctx, scans, j, w)
	case FormatParquet:
		ex, err = r.exportParquet(ctx, scans, j, w)
	default:
		return ex, schemas.FieldErrorf(schemas.Invalid, "lineage.Export", "format", "%q: want %s or %s", clip(format), FormatParquet, FormatNDJSON)
	}
	if err != nil {
		return Exported{}, err
	}
	if q.covers() {
		ex.Ranges = Ranges{}
		for _, s := range scans {
			ex.Ranges[s.name] = Receipt{From: s.from, Through: s.through, Time: time.Now().UTC()}
		}
	}
	return ex, nil
}

// covers reports whether a query leaves out nothing of the logs that it reads, but by time. What it selects may be pruned,
// so its export has to hold all that lies there.
func (q *Query) covers() bool {
	return q.Pipeline == "" && q.Model == "" && q.Status == "" && q.Role == "" && q.RequestID == "" && (q.Run == "" || q.Run == RunNone)
}

// ExportFile is Export to a file that appears under its name when it is whole and on disk.
func (r *StreamReader) ExportFile(ctx context.Context, q Query, format, path string) (ex Exported, err error) {
	err = WriteFile(path, func(w io.Writer) error {
		ex, err = r.Export(ctx, q, format, w)
		return err
	})
	return ex, err
}

// WriteFile writes a file under a temporary name beside path, syncs and renames it, and syncs the folder. If fn fails,
// nothing is left.
func WriteFile(path string, fn func(io.Writer) error) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*.part")
	if err != nil {
		return schemas.Errorf(schemas.Invalid, "lineage.WriteFile", "%w", err)
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	b := bufio.NewWriterSize(f, 1<<20)
	if err = fn(b); err != nil {
		return err
	}
	if err = b.Flush(); err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = f.Chmod(0o644)
	}
	if err == nil {
		err = f.Close()
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return schemas.Errorf(schemas.Unavailable, "lineage.WriteFile", "%w", err)
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return schemas.Errorf(schemas.Unavailable, "lineage.WriteFile", "%w", err)
	}
	defer d.Close()
	return d.Sync()
}

// exportScan is one log of an export with its ends fixed.
type exportScan struct {
	name          string
	from, through uint64
	q             Query
}

// exportScans fixes the ends: a second pass sees what the first one saw.
func (r *StreamReader) exportScans(ctx context.Context, q Query) ([]exportScan, error) {
	var scans []exportScan
	for _, name := range [...]string{LogOnline, LogJobs} {
		if name == LogOnline && q.Run != "" && q.Run != RunNone || name == LogJobs && q.Run == RunNone {
			continue
		}
		log := r.logs.log(name)
		st, err := log.Stats(ctx)
		if err != nil {
			return nil, err
		}
		s := exportScan{name: name, from: max(st.First, q.From, 1), through: st.Last, q: q}
		if !q.Since.IsZero() {
			seq, err := log.SequenceAt(ctx, q.Since)
			if err != nil {
				return nil, err
			}
			s.from = max(s.from, seq)
		}
		if !q.Until.IsZero() {
			seq, err := log.SequenceAt(ctx, q.Until)
			if err != nil {
				return nil, err
			}
			s.through = min(s.through, seq-1)
		}
		scans = append(scans, s)
	}
	return scans, nil
}

// each calls record for the records of an export, and feedback for what was said if the export covers the logs. data and fold
// leave out what a first pass does not need.
func (r *StreamReader) each(ctx context.Context, scans []exportScan, data, fold bool, record func(*Record) error, feedback func(*Feedback) error) error {
	for _, e := range scans {
		if e.through < e.from {
			continue
		}
		q := e.q
		q.Since, q.Until, q.From = time.Time{}, time.Time{}, e.from
		on := events{record: func(rec *Record) (bool, error) { return true, record(rec) }}
		if q.covers() {
			on.feedback, on.repeats = func(f *Feedback) (bool, error) { return true, feedback(f) }, true
		}
		s := r.newScan(e.name, q, data, 0, on)
		s.through = e.through
		if !fold {
			s.fold, s.back = nil, noFoldBack
		}
		if err := s.run(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (r *StreamReader) exportJSON(ctx context.Context, scans []exportScan, j *join, w io.Writer) (ex Exported, err error) {
	b := bufio.NewWriterSize(w, 256<<10)
	enc := json.NewEncoder(b)
	enc.SetEscapeHTML(false)
	err = r.each(ctx, scans, true, true, func(rec *Record) error {
		ex.Records++
		rec.Feedback = j.of(rec)
		return enc.Encode(rec.View())
	}, func(f *Feedback) error {
		ex.Feedback++
		return enc.Encode(f.View())
	})
	if err == nil {
		err = b.Flush()
	}
	return ex, err
}
