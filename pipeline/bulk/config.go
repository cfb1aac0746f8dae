package bulk

import (
	"errors"
	"path/filepath"
	"runtime"
	"time"

	"github.com/leatstream/leat/schemas"
)

// Config bounds what jobs take.
type Config struct {
	// Folder, if set, is the one folder below which jobs read and write files, symbolic links included. Empty: any file
	// that the server's user may open, which is right on loopback only.
	Folder string `yaml:"folder" json:"folder,omitempty"`

	ChunkRows   int   `yaml:"chunk_rows" json:"chunk_rows"`     // of a new job that states none
	PieceRows   int   `yaml:"piece_rows" json:"piece_rows"`     // rows scored at once; a job keeps what it began with
	QueueBytes  int64 `yaml:"queue_bytes" json:"queue_bytes"`   // chunks that wait for workers
	ResultBytes int64 `yaml:"result_bytes" json:"result_bytes"` // of a new job that states none; less if its file is small
	Window      int   `yaml:"window" json:"window"`             // chunks that may be fed before the first of them is written
	Parallel    int   `yaml:"parallel" json:"parallel"`         // chunks in work in this process for each job

	LeaseRenew  time.Duration `yaml:"lease_renew" json:"lease_renew"`
	LeaseExpiry time.Duration `yaml:"lease_expiry" json:"lease_expiry"` // a lease that was not renewed for so long is taken over
	Progress    time.Duration `yaml:"progress" json:"progress"`         // how often counters are stored

	// LineageFill is how full the lineage stream of jobs may become before jobs pause.
	LineageFill float64 `yaml:"lineage_fill" json:"lineage_fill"`
}

// Default returns what fits a machine of any size.
func Default() Config {
	return Config{
		ChunkRows: 4096, PieceRows: 256, QueueBytes: 64 << 20, ResultBytes: 1 << 30, Window: 256,
		Parallel:   runtime.GOMAXPROCS(0) + 1, // one decodes or appends while the others score
		LeaseRenew: 2 * time.Second, LeaseExpiry: 10 * time.Second, Progress: time.Second, LineageFill: 0.7,
	}
}

// Validate reports every fault with its field's path.
func (c Config) Validate() error {
	const op = "bulk.Config.Validate"
	var errs []error
	bad := func(field, format string, args ...any) {
		errs = append(errs, schemas.FieldErrorf(schemas.Invalid, op, "jobs."+field, format, args...))
	}
	if c.Folder != "" && !filepath.IsAbs(c.Folder) {
		bad("folder", "%q: want an absolute path", c.Folder)
	}
	if c.ChunkRows < 1 || c.ChunkRows > 1<<20 {
		bad("chunk_rows", "%d: want 1 to %d", c.ChunkRows, 1<<20)
	}
	if c.PieceRows < 1 || c.PieceRows > 1<<16 {
		bad("piece_rows", "%d: want 1 to %d", c.PieceRows, 1<<16)
	}
	if c.QueueBytes < 2<<20 {
		bad("queue_bytes", "%d: want at least %d, room for two chunks", c.QueueBytes, 2<<20)
	}
	if c.ResultBytes < minResultBytes {
		bad("result_bytes", "%d: want at least %d", c.ResultBytes, minResultBytes)
	}
	if c.Window < 1 || c.Window > 1<<16 {
		bad("window", "%d: want 1 to %d", c.Window, 1<<16)
	}
	if c.Parallel < 1 || c.Parallel > 1024 {
		bad("parallel", "%d: want 1 to 1024", c.Parallel)
	}
	if c.LeaseRenew <= 0 || c.LeaseExpiry < 3*c.LeaseRenew {
		bad("lease_expiry", "%s: want at least three times lease_renew (%s, more than 0)", c.LeaseExpiry, c.LeaseRenew)
	}
	if c.Progress <= 0 {
		bad("progress", "%s: want more than 0", c.Progress)
	}
	if !(c.LineageFill > 0 && c.LineageFill <= 1) {
		bad("lineage_fill", "%v: want more than 0, at most 1", c.LineageFill)
	}
	return errors.Join(errs...)
}

// minResultBytes is the smallest result stream: room for a result of the largest size and its neighbours.
const minResultBytes = 64 << 10
