package main

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// restEvery is how often the process looks whether it rests.
const restEvery = 500 * time.Millisecond

// restBelow is the allocation in one interval below which nothing of weight is going on: heartbeats and metrics alone.
const restBelow = 4 << 20

// giveBack returns memory that a burst has left to the system, once, as soon as the process rests. Without it what one
// busy hour needed stays resident, since Go gives back slowly what it may need again. It runs until ctx ends.
func giveBack(ctx context.Context) error {
	t := time.NewTicker(restEvery)
	defer t.Stop()
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(sample)
	before, busy := sample[0].Value.Uint64(), true
	for {
		select {
		case <-t.C:
		case <-ctx.Done():
			return nil
		}
		metrics.Read(sample)
		now := sample[0].Value.Uint64()
		switch rests := now-before < restBelow; {
		case !rests:
			busy = true
		case busy:
			busy = false
			debug.FreeOSMemory()
			metrics.Read(sample)
			now = sample[0].Value.Uint64()
		}
		before = now
	}
}
