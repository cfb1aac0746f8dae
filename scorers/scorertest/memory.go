package scorertest

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime/debug"
	"strconv"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/scorers"
)

// Bounds of Memory: what counts as flat. The slack is for the heaps' own arenas in a small process.
const (
	warmRows    = 10_000
	growth      = 1.1
	growthSlack = 4 << 20
)

// sizes are the batches of Memory: lone rows, odd sizes and pieces mixed, as natural batching makes them.
var sizes = [...]int{1, 1, 64, 1, 7, 1, 256, 1, 33, 1, 1024, 1, 2, 1, 129, 1}

// Memory scores the given number of rows and returns an error if the process's resident size grew by more than a tenth
// after the first 10,000. It measures the whole process: nothing else may run beside it.
func Memory(ctx context.Context, f *Fixture, rows int) error {
	return f.with(ctx, MaxRows, func(s scorers.Scorer, in *schemas.Batch) error {
		if err := f.mixed(ctx, s, in, warmRows); err != nil {
			return err
		}
		before, err := resident(ctx)
		if err != nil {
			return err
		}
		if err := f.mixed(ctx, s, in, rows-warmRows); err != nil {
			return err
		}
		after, err := resident(ctx)
		if err == nil && float64(after) > growth*float64(before)+growthSlack {
			err = fmt.Errorf("resident size %d kB after %d rows, %d kB after %d", before>>10, warmRows, after>>10, rows)
		}
		return err
	})
}

func (f *Fixture) mixed(ctx context.Context, s scorers.Scorer, in *schemas.Batch, rows int) error {
	part := schemas.NewBatch(in.Schema())
	out := schemas.NewBatch(s.Signature().Outputs)
	for i := 0; rows > 0; i++ {
		n := min(sizes[i%len(sizes)], rows)
		from := i * 31 % (MaxRows - n + 1)
		part.Reset()
		part.AppendRange(in, from, from+n)
		out.Reset()
		if err := s.Score(ctx, part, out); err != nil {
			return err
		}
		rows -= n
	}
	return nil
}

// resident returns the bytes of memory that this process holds, after Go gave back what it does not use.
func resident(ctx context.Context) (int64, error) {
	debug.FreeOSMemory()
	if b, err := os.ReadFile("/proc/self/statm"); err == nil {
		fields := bytes.Fields(b)
		if len(fields) < 2 {
			return 0, fmt.Errorf("/proc/self/statm: %q", b)
		}
		pages, err := strconv.ParseInt(string(fields[1]), 10, 64)
		return pages * int64(os.Getpagesize()), err
	}
	b, err := exec.CommandContext(ctx, "ps", "-o", "rss=", "-p", strconv.Itoa(os.Getpid())).Output()
	if err != nil {
		return 0, err
	}
	kb, err := strconv.ParseInt(string(bytes.TrimSpace(b)), 10, 64)
	return kb << 10, err
}
