package onnx

import (
	"context"
	"runtime"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/scorers"
	"github.com/leatstream/leat/scorers/onnx/onnxfile"
	"github.com/leatstream/leat/scorers/onnx/ortlib"
)

// Loader makes scorers of ONNX models. It implements scorers.Loader.
type Loader struct {
	cfg     Config
	slots   *scorers.Slots
	metrics *Metrics
}

var _ scorers.Loader = (*Loader)(nil)

// New returns a loader. It looks for no library yet: that happens at the first Probe or Load, so that a process without
// ONNX models needs none. slots caps the runs in flight, together with every other holder of it; nil makes slots of
// the loader's own, cfg.Parallel of them. m may be nil.
func New(cfg Config, slots *scorers.Slots, m *Metrics) (*Loader, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if slots == nil {
		slots = scorers.NewSlots(cfg.Parallel)
	}
	return &Loader{cfg: cfg, slots: slots, metrics: m}, nil
}

// Runtime returns "onnx".
func (l *Loader) Runtime() string { return "onnx" }

// Open opens the library now: what doctor and a server that has ONNX models do at start. Unavailable, in one line that
// says what to run, if it is missing or of another version.
func (l *Loader) Open() (ortlib.Library, error) { return ortlib.Open(l.cfg.Library) }

// Load returns a warm scorer. It checks the true shapes against those of the probe: Invalid if they differ, which a
// package that was probed cannot do on the same runtime.
func (l *Loader) Load(ctx context.Context, p scorers.Package, probed scorers.Probed) (scorers.Scorer, error) {
	s, _, err := l.open(ctx, "onnx.Load", p)
	if err != nil {
		return nil, err
	}
	if err := l.settle(ctx, s, probed); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// settle makes an opened model the one that the probe described, and warms it up.
func (l *Loader) settle(ctx context.Context, s *scorer, probed scorers.Probed) error {
	const op = "onnx.Load"
	if probed.Signature.Inputs == nil || probed.Signature.Outputs == nil {
		return schemas.Errorf(schemas.Invalid, op, "the model was not probed")
	}
	if a, b := s.sig.Inputs, probed.Signature.Inputs; a.ID() != b.ID() {
		return schemas.Errorf(schemas.Invalid, op, "the model takes (%s), its probe said (%s): push it again", a, b)
	}
	if a, b := s.sig.Outputs, probed.Signature.Outputs; a.ID() != b.ID() {
		return schemas.Errorf(schemas.Invalid, op, "the model gives (%s), its probe said (%s): push it again", a, b)
	}
	s.sig = probed.Signature
	if probed.MaxBatch > 0 {
		s.piece = min(s.piece, probed.MaxBatch)
	}
	if probed.Class == scorers.InvariantPadded && s.fixed == 0 {
		s.least = 2
	}
	// The session's first bound run is slower than the rest.
	in := synthetic(s.sig.Inputs, &onnxfile.Model{}, zero, 1)
	err := s.Score(ctx, in, schemas.NewBatch(s.sig.Outputs))
	if schemas.KindOf(err) == schemas.Invalid {
		return nil // rows of zeros are not for this model; learning its shapes has warmed it up
	}
	return err
}

// open loads a prepared package into a session and learns its true shapes.
func (l *Loader) open(ctx context.Context, op string, p scorers.Package) (*scorer, *opened, error) {
	o := &opened{op: op, man: p.Manifest}
	if err := ctx.Err(); err != nil {
		return nil, nil, schemas.AsError(op, err)
	}
	var err error
	if o.bytes, err = readModel(p); err != nil {
		return nil, nil, err
	}
	if err := o.read(); err != nil {
		return nil, nil, err
	}
	if _, err := l.Open(); err != nil {
		return nil, nil, err
	}
	if err := l.slots.Acquire(ctx); err != nil {
		return nil, nil, err
	}
	defer l.slots.Release()
	if err := o.learn(); err != nil {
		return nil, nil, err
	}
	s := &scorer{sig: o.sig, in: o.in, out: o.out, session: o.session, fixed: o.fixed, least: 1, slots: l.slots, metrics: l.metrics}
	s.piece = pieceRows(o)
	// Who forgets Close must not bring the process down: the runtime panics at pinned memory that nobody holds.
	runtime.SetFinalizer(s, (*scorer).Close)
	return s, o, nil
}

// Bounds of a piece. Trees are fastest near 1,024 rows a run; 8 MiB of rows keeps images and embeddings from filling
// memory.
const (
	maxPiece      = 1024
	maxPieceBytes = 8 << 20
)

func pieceRows(o *opened) int {
	if o.fixed > 0 {
		return o.fixed
	}
	row := 0
	for _, ps := range [][]port{o.in, o.out} {
		for i := range ps {
			row += ps[i].rowBytes()
		}
	}
	return min(max(maxPieceBytes/row, 2), maxPiece)
}
