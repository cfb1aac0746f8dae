package floors

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// RecordSize is about what the lineage record of one scored row takes, in bytes.
const RecordSize = 600

// Append is JetStream publish-and-wait: one message at a time to a file stream, as a commit of one row is.
type Append struct {
	nc      *nats.Conn
	js      jetstream.JetStream
	subject string
	payload []byte
}

// NewAppend makes the stream. Whether appends are synced is the server's choice.
func NewAppend(ctx context.Context, s *Server, inProcess bool) (*Append, error) {
	nc, err := s.Connect(inProcess)
	if err != nil {
		return nil, err
	}
	a := &Append{nc: nc, subject: "floor.append", payload: make([]byte, RecordSize)}
	_, _ = rand.Read(a.payload) // never fails
	if a.js, err = jetstream.New(nc); err == nil {
		_, err = a.js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{Name: "FLOOR_APPEND", Subjects: []string{a.subject},
			Storage: jetstream.FileStorage, Discard: jetstream.DiscardOld, MaxBytes: 1 << 30})
	}
	if err != nil {
		nc.Close()
		return nil, fmt.Errorf("floors: append: %w", err)
	}
	return a, nil
}

// Run appends one after the other for that long and returns the latencies in nanoseconds.
func (a *Append) Run(ctx context.Context, warmup, d time.Duration) (*hdrhistogram.Histogram, error) {
	return paced(warmup, d, func() error {
		_, err := a.js.Publish(ctx, a.subject, a.payload)
		return err
	})
}

// paced does the same one after the other, and returns the latencies after the warm-up.
func paced(warmup, d time.Duration, do func() error) (*hdrhistogram.Histogram, error) {
	h := hdrhistogram.New(int64(time.Microsecond), int64(time.Minute), 3)
	start := time.Now()
	begin, end := start.Add(warmup), start.Add(warmup+d)
	for {
		t := time.Now()
		if t.After(end) {
			return h, nil
		}
		if err := do(); err != nil {
			return nil, fmt.Errorf("floors: %w", err)
		}
		if t.After(begin) {
			_ = h.RecordValue(int64(time.Since(t)))
		}
	}
}

// Close closes the connection; the stream goes with the server's folder.
func (a *Append) Close() { a.nc.Close() }

// Fsync returns the median time of writing RecordSize bytes to the end of a file in dir and syncing them: what a synced
// append cannot go below on this disk.
func Fsync(dir string, rounds int) (time.Duration, error) {
	f, err := os.Create(filepath.Join(dir, "fsync"))
	if err != nil {
		return 0, fmt.Errorf("floors: %w", err)
	}
	defer func() { _ = f.Close(); _ = os.Remove(f.Name()) }()
	h := hdrhistogram.New(int64(time.Microsecond), int64(time.Minute), 3)
	b := make([]byte, RecordSize)
	for range rounds {
		t := time.Now()
		if _, err := f.Write(b); err != nil {
			return 0, fmt.Errorf("floors: %w", err)
		}
		if err := f.Sync(); err != nil {
			return 0, fmt.Errorf("floors: %w", err)
		}
		_ = h.RecordValue(int64(time.Since(t)))
	}
	return time.Duration(h.ValueAtQuantile(50)), nil
}
