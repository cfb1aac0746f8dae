package broker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// mount puts a file system of a size where broker i keeps its data.
func (c *Cluster) mount(i int, size string) error {
	dir := filepath.Join(c.BrokerDir(i), "data")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("broker: %w", err)
	}
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size="+size, "tmpfs", dir).CombinedOutput(); err != nil {
		return fmt.Errorf("broker: a disk of its own for broker %d, which only root can mount: %s (%w)", i, strings.TrimSpace(string(out)), err)
	}
	c.disks = append(c.disks, dir)
	return nil
}

func (c *Cluster) filler(i int) string { return filepath.Join(c.BrokerDir(i), "data", "filler") }

// Fill writes broker i's disk full, to the last byte. It is for a cluster with a Disk.
func (c *Cluster) Fill(t testing.TB, i int) {
	t.Helper()
	f, err := os.Create(c.filler(i))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for b := make([]byte, 1<<20); len(b) > 0; { // smaller and smaller, as the file system counts in pages
		if _, err = f.Write(b); errors.Is(err, syscall.ENOSPC) {
			b = b[:len(b)/2]
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

// Free makes room on broker i's disk again.
func (c *Cluster) Free(t testing.TB, i int) {
	t.Helper()
	if err := os.Remove(c.filler(i)); err != nil {
		t.Fatal(err)
	}
}

// Ended waits until broker i has ended by itself.
func (c *Cluster) Ended(ctx context.Context, i int) error {
	pid, err := c.Pid(i)
	if err != nil {
		return err
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		args, _ := exec.Command("ps", "-o", "args=", "-p", strconv.Itoa(pid)).Output()
		if !strings.Contains(string(args), c.BrokerDir(i)) {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("broker: broker %d is still there: %w", i, ctx.Err())
		}
	}
}
