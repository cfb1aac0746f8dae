package pipeline_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/scorers"
)

// arithmetic is a model family that anybody can check: version v of model m answers score = v*x and by = "m@v". It
// watches what it is asked, and does what the text of a row says: "bad" cannot be scored, "panic" panics, "nul" is refused
// before it is merged, the answer to "long" is larger than any message.
type arithmetic struct {
	sig    schemas.Signature
	before atomic.Pointer[func(in *schemas.Batch) error]            // runs before each run
	during atomic.Pointer[func(by string, in *schemas.Batch) error] // the same, of a version

	mu struct {
		sync.Mutex
		runs   []int           // rows of each run
		scored map[float64]int // how often each x was scored
		open   map[string]int  // loaded scorers by name@version
		loads  int
		fail   map[string]error // versions that cannot be loaded
	}
	same    map[string]string // versions whose content equals that of another one
	loading chan struct{}     // not nil: loads of version 99 wait for it
}

func newArithmetic() *arithmetic {
	a := &arithmetic{sig: schemas.Signature{
		Inputs: schemas.MustSchema(
			schemas.Field{Name: "x", Type: schemas.Float64},
			schemas.Field{Name: "text", Type: schemas.String, Nullable: true},
		),
		Outputs: schemas.MustSchema(
			schemas.Field{Name: "score", Type: schemas.Float64},
			schemas.Field{Name: "by", Type: schemas.String},
		),
	}}
	a.mu.scored, a.mu.open, a.mu.fail = map[float64]int{}, map[string]int{}, map[string]error{}
	return a
}

// onRun has fn run before each run of any version.
func (a *arithmetic) onRun(fn func(in *schemas.Batch) error) { a.before.Store(&fn) }

// onRunOf is onRun that is told which version runs.
func (a *arithmetic) onRunOf(fn func(by string, in *schemas.Batch) error) { a.during.Store(&fn) }

// runs returns the rows of each run so far.
func (a *arithmetic) runs() []int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]int(nil), a.mu.runs...)
}

func (a *arithmetic) timesScored(x float64) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.mu.scored[x]
}

// open returns the versions that are loaded.
func (a *arithmetic) open() map[string]int {
	a.mu.Lock()
	defer a.mu.Unlock()
	open := map[string]int{}
	for k, n := range a.mu.open {
		if n != 0 {
			open[k] = n
		}
	}
	return open
}

func (a *arithmetic) loadCount() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.mu.loads
}

func (a *arithmetic) failLoads(ref string, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.mu.fail[ref] = err
}

// multiplier is a loaded version.
type multiplier struct {
	a      *arithmetic
	by     string
	factor float64
	closed atomic.Bool
}

func (m *multiplier) Signature() schemas.Signature { return m.a.sig }

func (m *multiplier) CheckRows(in *schemas.Batch, from, to int) error {
	for i := from; i < to; i++ {
		if string(in.Column(1).Text(i)) == "nul" {
			return schemas.FieldErrorf(schemas.Invalid, "multiplier.CheckRows", fmt.Sprintf("rows[%d].text", i), "nul cannot be scored")
		}
	}
	return nil
}

func (m *multiplier) Score(_ context.Context, in, out *schemas.Batch) error {
	if m.closed.Load() {
		return schemas.Errorf(schemas.Unavailable, "multiplier.Score", "%s is closed", m.by)
	}
	if f := m.a.before.Load(); f != nil {
		if err := (*f)(in); err != nil {
			return err
		}
	}
	if f := m.a.during.Load(); f != nil {
		if err := (*f)(m.by, in); err != nil {
			return err
		}
	}
	x := schemas.Values[float64](in.Column(0))
	m.a.mu.Lock()
	m.a.mu.runs = append(m.a.mu.runs, in.Rows())
	for _, v := range x {
		m.a.mu.scored[v]++
	}
	m.a.mu.Unlock()
	for i, v := range x {
		switch text := string(in.Column(1).Text(i)); text {
		case "bad":
			return schemas.FieldErrorf(schemas.Invalid, "multiplier.Score", fmt.Sprintf("rows[%d].text", i), "bad cannot be scored")
		case "panic":
			panic("a row that the model does not survive")
		}
		schemas.Append(out.Column(0), m.factor*v)
		out.Column(0).EndRow()
		if string(in.Column(1).Text(i)) == "long" { // no message takes such an answer
			out.Column(1).AppendString(strings.Repeat("x", 1<<20))
		} else {
			out.Column(1).AppendString(m.by)
		}
		out.Column(1).EndRow()
	}
	out.Advance(in.Rows())
	return nil
}

func (m *multiplier) Close() error {
	if !m.closed.Swap(true) {
		m.a.mu.Lock()
		m.a.mu.open[m.by]--
		m.a.mu.Unlock()
	}
	return nil
}

// The loader.

func (a *arithmetic) Runtime() string { return "arithmetic" }

func (a *arithmetic) Prepare(_ context.Context, p scorers.Package) (scorers.Package, error) {
	return p, nil
}

func (a *arithmetic) Probe(context.Context, scorers.Package) (scorers.Probed, error) {
	return scorers.Probed{Signature: a.sig, Class: scorers.BatchInvariant, Runtime: "arithmetic 1"}, nil
}

func (a *arithmetic) Load(ctx context.Context, p scorers.Package, _ scorers.Probed) (scorers.Scorer, error) {
	by := p.Manifest.Description
	if a.loading != nil && strings.HasSuffix(by, "@99") {
		select {
		case <-a.loading:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	var name string
	var version int
	if _, err := fmt.Sscanf(strings.Replace(by, "@", " ", 1), "%s %d", &name, &version); err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.mu.fail[by]; err != nil {
		return nil, err
	}
	a.mu.open[by]++
	a.mu.loads++
	return &multiplier{a: a, by: by, factor: float64(version)}, nil
}

// The store: every version of every model exists, up to 1,000.

func (a *arithmetic) Version(_ context.Context, name string, version int) (scorers.Version, error) {
	if version < 1 || version > 1000 {
		return scorers.Version{}, schemas.Errorf(schemas.NotFound, "arithmetic.Version", "no %s@%d", name, version)
	}
	ref := fmt.Sprintf("%s@%d", name, version)
	content := ref
	if s := a.same[ref]; s != "" {
		content = s
	}
	sum := sha256.Sum256([]byte(content))
	return scorers.Version{
		Name: name, Version: version, Digest: hex.EncodeToString(sum[:]),
		Manifest: scorers.Manifest{Name: name, Runtime: "arithmetic", Description: ref},
		Probed:   scorers.Probed{Signature: a.sig, Class: scorers.BatchInvariant, Runtime: "arithmetic 1"},
	}, nil
}

func (a *arithmetic) Versions(ctx context.Context, name string) ([]scorers.Version, error) {
	v, err := a.Version(ctx, name, 1)
	return []scorers.Version{v}, err
}

func (a *arithmetic) Open(_ context.Context, v scorers.Version) (scorers.Package, error) {
	return scorers.Package{Manifest: v.Manifest}, nil
}
