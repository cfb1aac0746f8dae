package lineage

import (
	"context"
	"errors"
	"time"

	"github.com/leatstream/leat/schemas"
)

// The names of the logs and their subjects (SEMANTICS 4).
const (
	LogOnline   = "LEAT_LINEAGE"      // online and continuous: leat.lineage.<pipeline>
	LogJobs     = "LEAT_LINEAGE_JOBS" // jobs: leat.lineage-jobs.<pipeline>
	LogRejected = "LEAT_REJECTED"     // refusals: leat.rejected.refused
)

// What the subjects of the logs begin with. A log that lies in a topic lies in the topic of this name, with the rest of
// the subject as key.
const (
	prefixOnline   = "leat.lineage"
	prefixJobs     = "leat.lineage-jobs"
	prefixRejected = "leat.rejected"
)

// Config sizes the streams and bounds what waits. See Default.
type Config struct {
	MaxBytes         int64 `yaml:"max_bytes"`          // of LEAT_LINEAGE; when full, requests are refused as unavailable
	JobsMaxBytes     int64 `yaml:"jobs_max_bytes"`     // of LEAT_LINEAGE_JOBS; jobs pause at 70 %
	RejectedMaxBytes int64 `yaml:"rejected_max_bytes"` // of LEAT_REJECTED; the oldest go
	Replicas         int   `yaml:"replicas"`

	TryTimeout time.Duration `yaml:"try_timeout"` // after which an append without an answer is repeated
	WatchEvery time.Duration `yaml:"watch_every"` // how often the fill level is looked at
	WarnAt     float64       `yaml:"warn_at"`     // fill ratio from which a warning is logged

	RefusalsPerSecond float64 `yaml:"refusals_per_second"` // kept for each principal; the rest is counted
	RefusalsBurst     int     `yaml:"refusals_burst"`

	FoldBack    time.Duration `yaml:"fold_back"`    // how long before a query's start duplicates are looked for
	FoldRecords int           `yaml:"fold_records"` // how many records back duplicates are found at least; about 100 bytes each
}

// Default returns the configuration of a server that nobody configured.
func Default() Config {
	return Config{
		MaxBytes: 4 << 30, JobsMaxBytes: 4 << 30, RejectedMaxBytes: 64 << 20, Replicas: 1,
		TryTimeout: 2 * time.Second, WatchEvery: 10 * time.Second, WarnAt: 0.8,
		RefusalsPerSecond: 10, RefusalsBurst: 50,
		FoldBack: 10 * time.Minute, FoldRecords: 1 << 20,
	}
}

// Validate reports every fault with its field.
func (c *Config) Validate() error {
	var errs []error
	check := func(ok bool, field, want string) {
		if !ok {
			errs = append(errs, schemas.FieldErrorf(schemas.Invalid, "lineage.Config", field, "%s", want))
		}
	}
	const least = 4 * MaxMessage
	check(c.MaxBytes >= least, "lineage.max_bytes", "want at least 3686400 bytes")
	check(c.JobsMaxBytes >= least, "lineage.jobs_max_bytes", "want at least 3686400 bytes")
	check(c.RejectedMaxBytes >= 1<<20, "lineage.rejected_max_bytes", "want at least 1048576 bytes")
	check(c.Replicas >= 1 && c.Replicas <= 5, "lineage.replicas", "want 1 to 5")
	check(c.TryTimeout >= 10*time.Millisecond, "lineage.try_timeout", "want at least 10ms")
	check(c.WatchEvery >= 10*time.Millisecond, "lineage.watch_every", "want at least 10ms")
	check(c.WarnAt > 0 && c.WarnAt <= 1, "lineage.warn_at", "want more than 0, at most 1")
	check(c.RefusalsPerSecond > 0, "lineage.refusals_per_second", "want more than 0")
	check(c.RefusalsBurst >= 1, "lineage.refusals_burst", "want at least 1")
	check(c.FoldBack >= 0, "lineage.fold_back", "want 0 or more")
	check(c.FoldRecords >= 1000, "lineage.fold_records", "want at least 1000")
	return errors.Join(errs...)
}

// Catalogue knows schemas by their ids: *wire.Catalogue. It is safe for concurrent use.
type Catalogue interface {
	// Put makes the schema known; another schema under its id is an error.
	Put(ctx context.Context, s *schemas.Schema) error
	// Lookup returns the schema of an id, NotFound if nobody made it known.
	Lookup(ctx context.Context, id schemas.SchemaID) (*schemas.Schema, error)
}

// Logs are the three streams of the lineage.
type Logs struct {
	Online, Jobs, Rejected schemas.Log
}

// Open creates the streams, or opens what exists.
func Open(ctx context.Context, logs schemas.Logs, c Config) (Logs, error) {
	var l Logs
	for _, o := range [...]struct {
		to *schemas.Log
		c  schemas.LogConfig
	}{
		{&l.Online, schemas.LogConfig{Name: LogOnline, Prefix: prefixOnline, MaxBytes: c.MaxBytes, Replicas: c.Replicas}},
		{&l.Jobs, schemas.LogConfig{Name: LogJobs, Prefix: prefixJobs, MaxBytes: c.JobsMaxBytes, Replicas: c.Replicas}},
		{&l.Rejected, schemas.LogConfig{Name: LogRejected, Prefix: prefixRejected, MaxBytes: c.RejectedMaxBytes, DiscardOld: true, Replicas: c.Replicas}},
	} {
		log, err := logs.OpenLog(ctx, o.c)
		if err != nil {
			e := schemas.AsError("lineage.Open", err)
			return Logs{}, schemas.Errorf(e.Kind, "lineage.Open", "stream %s: %w", o.c.Name, err)
		}
		*o.to = log
	}
	return l, nil
}

// log returns a log by its stream's name.
func (l *Logs) log(name string) schemas.Log {
	switch name {
	case LogJobs:
		return l.Jobs
	case LogRejected:
		return l.Rejected
	}
	return l.Online
}
