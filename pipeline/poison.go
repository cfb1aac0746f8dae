package pipeline

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
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

	alone sync.RWMutex // every run holds it shared, a suspect's alone: a death then tells which row it was
	count atomic.Int32 // of suspects; they never become more while the process lives

	mu struct {
		sync.Mutex
		free     []int32
		suspects map[mark]suspect
		missed   uint64
		closed   bool
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
		if o, ok := p.mu.suspects[mark(s[:16])]; ok { // the same rows were in two runs: one slot tells of both
			p.slot(o.slot)[17] = max(o.deaths, s[17])
			p.mu.suspects[mark(s[:16])] = suspect{o.slot, max(o.deaths, s[17])}
			s[16], s[17] = slotFree, 0
			p.mu.free = append(p.mu.free, i)
			continue
		}
		p.mu.suspects[mark(s[:16])] = suspect{i, s[17]}
	}
	p.count.Store(int32(len(p.mu.suspects)))
	return p, nil
}

// Suspects returns how many requests and pieces were being run when a process died and have not passed since.
func (p *Poison) Suspects() int {
	if p == nil {
		return 0
	}
	return int(p.count.Load())
}

// Close unmaps the file. Runs that still go on are not marked any more.
func (p *Poison) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.closed {
		return nil
	}
	p.mu.closed = true
	if err := syscall.Munmap(p.mem); err != nil {
		return fmt.Errorf("pipeline: unmap: %w", err)
	}
	return p.f.Close()
}

func (p *Poison) slot(i int32) []byte { return p.mem[int(i)*slotSize : int(i+1)*slotSize] }

// deaths returns how often the process died while m was being run.
func (p *Poison) deaths(m mark) byte {
	if p.Suspects() == 0 {
		return 0
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mu.suspects[m].deaths
}

// begin marks what is about to be run together and returns the slots for end.
func (p *Poison) begin(ms []mark, slots []int32) []int32 {
	if p == nil {
		return slots
	}
	p.alone.RLock()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, m := range ms {
		slots = p.markLocked(m, 0, slots)
	}
	return slots
}

// end clears the marks of a run that came back, whatever it answered: it did not kill.
func (p *Poison) end(slots []int32) {
	if p == nil {
		return
	}
	p.clear(slots)
	p.alone.RUnlock()
}

// beginBeside is begin for a run that nobody waits for: it does not keep suspects from running alone, since it may never come
// back.
func (p *Poison) beginBeside(ms []mark) (slots []int32) {
	if p == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, m := range ms {
		slots = p.markLocked(m, 0, slots)
	}
	return slots
}

// endBeside is end for beginBeside.
func (p *Poison) endBeside(slots []int32) {
	if p != nil {
		p.clear(slots)
	}
}

// beginAlone waits until nothing else runs, keeps everything else waiting, and marks a suspect. deaths is what m has seen
// at least: a row of a request that died inherits the request's.
func (p *Poison) beginAlone(m mark, deaths byte, slots []int32) []int32 {
	p.alone.Lock()
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.markLocked(m, deaths, slots)
}

// endAlone is end for beginAlone.
func (p *Poison) endAlone(slots []int32) {
	p.clear(slots)
	p.alone.Unlock()
}

func (p *Poison) markLocked(m mark, deaths byte, slots []int32) []int32 {
	if p.mu.closed {
		return slots
	}
	i := int32(-1)
	if s, ok := p.mu.suspects[m]; ok {
		i = s.slot
	} else if n := len(p.mu.free); n > 0 {
		i = p.mu.free[n-1]
		p.mu.free = p.mu.free[:n-1]
		copy(p.slot(i), m[:])
		p.slot(i)[17] = deaths
	} else {
		p.mu.missed++
		return slots
	}
	p.slot(i)[16] = slotRunning
	return append(slots, i)
}

func (p *Poison) clear(slots []int32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clearLocked(slots)
}

func (p *Poison) clearLocked(slots []int32) {
	if p.mu.closed {
		return
	}
	for _, i := range slots {
		s := p.slot(i)
		delete(p.mu.suspects, mark(s[:16]))
		s[16], s[17] = slotFree, 0
		p.mu.free = append(p.mu.free, i)
	}
	p.count.Store(int32(len(p.mu.suspects)))
}

// pass says that m is no suspect any more.
func (p *Poison) pass(m mark) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s, ok := p.mu.suspects[m]; ok { // the same rows may come twice, and pass twice
		p.clearLocked([]int32{s.slot})
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

// markOfRows names rows [from, to) of a batch together with the model that runs them. Marks stay in this machine's file,
// so a fast hash does.
func markOfRows(model string, b *schemas.Batch, from, to int) (m mark) {
	h := xxhash.New()
	_, _ = h.WriteString(model) // a hash does not fail
	var word [4]byte
	for i := range b.Schema().Len() {
		c := b.Column(i)
		w := c.Width()
		if size := c.Field().Type.Size(); size > 0 {
			_, _ = h.Write(c.Data()[from*w*size : to*w*size])
			continue
		}
		o := c.Offsets()[from*w : to*w+1]
		_, _ = h.Write(c.Data()[o[0]:o[len(o)-1]])
		for e := range o[1:] {
			binary.LittleEndian.PutUint32(word[:], uint32(o[e+1]-o[e]))
			_, _ = h.Write(word[:])
		}
	}
	sum := h.Sum64()
	binary.LittleEndian.PutUint64(m[:], sum)
	binary.LittleEndian.PutUint64(m[8:], sum^uint64(to-from)<<48)
	return m
}

// errDeadly is wrapped by the answer to rows that are not run any more.
var errDeadly = errors.New("these rows have ended the process twice while they were scored: they are not run again")

func quarantined() error { return schemas.Errorf(schemas.Internal, "pipeline.poison", "%w", errDeadly) }
