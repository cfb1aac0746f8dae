package pipeline

import (
	"crypto/sha256"
	"fmt"
	"os"
	"sync"
	"syscall"

	"github.com/cespare/xxhash/v2"

	"github.com/leatstream/leat/schemas"
)

// A row can kill the process: INT64 Div of -2^63 by -1 raises SIGFPE inside ONNX Runtime, which Go cannot recover from,
// and redelivery would bring the row round for ever. So what is about to be run is marked in a memory-mapped file and
// cleared after it: the page cache outlives SIGKILL and SIGFPE, so a mark costs no sync. What is still marked at the next
// start are the suspects: each runs alone until it passes; after a second death it is quarantined (SEMANTICS 7).

// mark names a request's rows together with the model that runs them.
type mark [16]byte

// Layout of the file: slots of 32 bytes, each a mark, a state and a number of deaths.
const (
	poisonSlots = 1 << 14 // requests and pieces that may be in runs at once; beyond it a run goes unmarked, which is counted
	slotSize    = 32
	slotFree    = 0
	slotRunning = 1
	slotSuspect = 2
	deadly      = 2 // deaths after which a suspect is not run again
)

// Poison is the file of marks of one process. It is safe for concurrent use. A nil Poison marks nothing.
type Poison struct {
	mem []byte
	f   *os.File

	mu struct {
		sync.Mutex
		free     []int32
		suspects map[mark]suspect
		missed   uint64
	}
}

type suspect struct {
	slot   int32
	deaths byte
}

// OpenPoison maps the file, made if absent, and reads from it what was being run when its last owner died.
func OpenPoison(path string) (*Poison, error) {
	const op = "pipeline.OpenPoison"
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, schemas.Errorf(schemas.Unavailable, op, "%w", err)
	}
	if err := f.Truncate(poisonSlots * slotSize); err != nil {
		f.Close()
		return nil, schemas.Errorf(schemas.Unavailable, op, "%w", err)
	}
	mem, err := syscall.Mmap(int(f.Fd()), 0, poisonSlots*slotSize, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	if err != nil {
		f.Close()
		return nil, schemas.Errorf(schemas.Unavailable, op, "map %s: %w", path, err)
	}
	p := &Poison{mem: mem, f: f}
	p.mu.suspects = map[mark]suspect{}
	for i := int32(poisonSlots - 1); i >= 0; i-- {
		s := p.slot(i)
		if s[16] == slotFree {
			p.mu.free = append(p.mu.free, i)
			continue
		}
		if s[16] == slotRunning {
			s[17]++
			s[16] = slotSuspect
		}
		p.mu.suspects[mark(s[:16])] = suspect{i, s[17]}
	}
	return p, nil
}

// Suspects returns how many requests and pieces were being run when a process died and have not passed since.
func (p *Poison) Suspects() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.mu.suspects)
}

// Close unmaps the file.
func (p *Poison) Close() error {
	if err := syscall.Munmap(p.mem); err != nil {
		return fmt.Errorf("pipeline: unmap: %w", err)
	}
	return p.f.Close()
}

func (p *Poison) slot(i int32) []byte { return p.mem[int(i)*slotSize : int(i+1)*slotSize] }

// deaths returns how often the process died while m was being run.
func (p *Poison) deaths(m mark) byte {
	if p == nil {
		return 0
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mu.suspects[m].deaths
}

// begin marks what is about to be run and returns the slots for end.
func (p *Poison) begin(ms []mark, slots []int32) []int32 {
	if p == nil {
		return slots
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, m := range ms {
		i := int32(-1)
		if s, ok := p.mu.suspects[m]; ok {
			i = s.slot
		} else if n := len(p.mu.free); n > 0 {
			i = p.mu.free[n-1]
			p.mu.free = p.mu.free[:n-1]
			copy(p.slot(i), m[:])
			p.slot(i)[17] = 0
		} else {
			p.mu.missed++
			continue
		}
		p.slot(i)[16] = slotRunning
		slots = append(slots, i)
	}
	return slots
}

// end clears the marks of a run that came back, whatever it answered: it did not kill.
func (p *Poison) end(slots []int32) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, i := range slots {
		s := p.slot(i)
		if len(p.mu.suspects) > 0 {
			delete(p.mu.suspects, mark(s[:16]))
		}
		s[16], s[17] = slotFree, 0
		p.mu.free = append(p.mu.free, i)
	}
}

// markOf names a request.
func markOf(model string, digest [32]byte) (m mark) {
	copy(m[:], digest[:])
	for i := 0; i < len(m) && i < len(model); i++ {
		m[i] ^= model[i]
	}
	return m
}

// markOfRows names rows of a job's piece. Marks stay in this machine's file, so a fast hash does.
func markOfRows(model string, b *schemas.Batch, from, to int) (m mark) {
	if to-from == 1 {
		one := schemas.NewBatch(b.Schema())
		one.AppendRange(b, from, to)
		b = one
	}
	h := xxhash.New()
	_, _ = h.WriteString(model) // a hash does not fail
	for i := range b.Schema().Len() {
		c := b.Column(i)
		_, _ = h.Write(c.Data())
		for _, o := range c.Offsets() {
			_, _ = h.Write([]byte{byte(o), byte(o >> 8), byte(o >> 16), byte(o >> 24)})
		}
	}
	sum := sha256.Sum256(h.Sum(nil))
	copy(m[:], sum[:])
	return m
}

// quarantined is the answer to rows that have killed the process twice.
func quarantined() error {
	return schemas.Errorf(schemas.Internal, "pipeline.poison", "these rows have ended the process %d times while they were scored: they are not run again", deadly)
}
