package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"time"
)

// resident returns a process's resident size in MiB.
func resident(ctx context.Context, pid int) (float64, error) {
	if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid)); err == nil {
		for line := range bytes.Lines(b) {
			if f := bytes.Fields(line); len(f) >= 2 && string(f[0]) == "VmRSS:" {
				return kibibytes(string(f[1]))
			}
		}
	}
	b, err := exec.CommandContext(ctx, "ps", "-o", "rss=", "-p", strconv.Itoa(pid)).Output()
	if err != nil {
		return 0, fmt.Errorf("bench: resident size of %d: %w", pid, err)
	}
	return kibibytes(string(bytes.TrimSpace(b)))
}

func kibibytes(s string) (float64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("bench: resident size %q: %w", s, err)
	}
	return float64(n) / 1024, nil
}

// settled is the median resident size over some seconds without load.
func settled(ctx context.Context, pid int) (float64, error) {
	var sizes []float64
	for range 15 {
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return 0, ctx.Err()
		}
		v, err := resident(ctx, pid)
		if err != nil {
			return 0, err
		}
		sizes = append(sizes, v)
	}
	return median(sizes), nil
}
