package floors

import (
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/leatstream/leat/integration/bench/load"
	ort "github.com/yalue/onnxruntime_go"
)

// ONNX is ONNX Runtime with the boosted model and nothing around it: one session, one thread inside a run, tensors made
// once and written in place. One at a time in a process.
type ONNX struct {
	session *ort.DynamicAdvancedSession
	rows    *load.Rows
}

// NewONNX loads the shared library and the model, whose input is features float32 [N,13] and whose outputs are label
// int64 [N] and probabilities float32 [N,2].
func NewONNX(library string, model []byte, rows *load.Rows) (*ONNX, error) {
	ort.SetSharedLibraryPath(library)
	if err := ort.InitializeEnvironment(); err != nil {
		return nil, fmt.Errorf("floors: ONNX Runtime at %s: %w", library, err)
	}
	o := &ONNX{rows: rows}
	err := func() error {
		opts, err := ort.NewSessionOptions()
		if err != nil {
			return err
		}
		defer func() { _ = opts.Destroy() }()
		err = errors.Join(opts.SetIntraOpNumThreads(1), opts.SetInterOpNumThreads(1),
			opts.AddSessionConfigEntry("session.intra_op.allow_spinning", "0"))
		if err != nil {
			return err
		}
		o.session, err = ort.NewDynamicAdvancedSessionWithONNXData(model, []string{"features"}, []string{"label", "probabilities"}, opts)
		return err
	}()
	if err != nil {
		_ = ort.DestroyEnvironment()
		return nil, fmt.Errorf("floors: load the model: %w", err)
	}
	return o, nil
}

// batch is the tensors of runs of one size. The slices live as long as the batch: the runtime holds pointers to them.
type batch struct {
	in, probabilities   []float32
	label               []int64
	tin, tprob          *ort.Tensor[float32]
	tlabel              *ort.Tensor[int64]
	inputs, outputs     []ort.Value
	size, width, nextAt int
}

func newBatch(size int) (*batch, error) {
	b := &batch{size: size, width: len(load.Features), probabilities: make([]float32, 2*size), label: make([]int64, size)}
	b.in = make([]float32, size*b.width)
	n := int64(size)
	var e1, e2, e3 error
	b.tin, e1 = ort.NewTensor(ort.NewShape(n, int64(b.width)), b.in)
	b.tlabel, e2 = ort.NewTensor(ort.NewShape(n), b.label)
	b.tprob, e3 = ort.NewTensor(ort.NewShape(n, 2), b.probabilities)
	if err := errors.Join(e1, e2, e3); err != nil {
		return nil, fmt.Errorf("floors: tensors: %w", err)
	}
	b.inputs, b.outputs = []ort.Value{b.tin}, []ort.Value{b.tlabel, b.tprob}
	return b, nil
}

func (b *batch) close() {
	for _, v := range []ort.Value{b.tin, b.tlabel, b.tprob} {
		_ = v.Destroy()
	}
}

// run scores the next rows of the sample, round and round.
func (o *ONNX) run(b *batch) error {
	if b.nextAt+b.size > o.rows.N {
		b.nextAt = 0
	}
	copy(b.in, o.rows.Values[b.nextAt*b.width:])
	b.nextAt += b.size
	return o.session.Run(b.inputs, b.outputs)
}

// One scores one row after the other on one goroutine and returns the latencies in nanoseconds.
func (o *ONNX) One(warmup, d time.Duration) (*hdrhistogram.Histogram, error) {
	b, err := newBatch(1)
	if err != nil {
		return nil, err
	}
	defer b.close()
	return paced(warmup, d, func() error { return o.run(b) })
}

// Bulk scores batches of size on that many threads at once and returns rows a second.
func (o *ONNX) Bulk(size, threads int, d time.Duration) (float64, error) {
	if size > o.rows.N {
		return 0, fmt.Errorf("floors: batch of %d rows, the sample has %d", size, o.rows.N)
	}
	batches := make([]*batch, threads)
	for i := range batches {
		b, err := newBatch(size)
		if err != nil {
			return 0, err
		}
		defer b.close()
		b.nextAt = i * o.rows.N / threads
		batches[i] = b
	}
	var rows atomic.Int64
	errs := make([]error, threads)
	start := time.Now()
	var wg sync.WaitGroup
	for i, b := range batches {
		wg.Go(func() {
			for errs[i] == nil && time.Since(start) < d {
				errs[i] = o.run(b)
				rows.Add(int64(size))
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return 0, fmt.Errorf("floors: run: %w", err)
	}
	return float64(rows.Load()) / time.Since(start).Seconds(), nil
}

// Sizes are the batch sizes that BestBatch tries.
var Sizes = []int{256, 512, 1024, 2048, 4096}

// BestBatch returns the size that scores most rows a second, with its rate.
func (o *ONNX) BestBatch(threads int, d time.Duration) (size int, rate float64, err error) {
	for _, n := range Sizes {
		if n > o.rows.N {
			break
		}
		r, err := o.Bulk(n, threads, d)
		if err != nil {
			return 0, 0, err
		}
		if r > rate {
			size, rate = n, r
		}
	}
	return size, rate, nil
}

// Late returns the model's probability of class 1 for one row of 13 values: the truth that an answer is checked against.
func (o *ONNX) Late(row []float32) (float64, error) {
	b, err := newBatch(1)
	if err != nil {
		return 0, err
	}
	defer b.close()
	copy(b.in, row)
	if err := o.session.Run(b.inputs, b.outputs); err != nil {
		return 0, fmt.Errorf("floors: run: %w", err)
	}
	if p := float64(b.probabilities[1]); !math.IsNaN(p) {
		return p, nil
	}
	return 0, errors.New("floors: the model answered NaN")
}

// Close frees session and library.
func (o *ONNX) Close() error { return errors.Join(o.session.Destroy(), ort.DestroyEnvironment()) }
