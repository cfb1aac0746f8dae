package onnx

import (
	"regexp"
	"strings"

	ort "github.com/yalue/onnxruntime_go"

	"github.com/leatstream/leat/schemas"
)

// newSession loads a model. names are those that runs feed and ask for.
func newSession(op string, model []byte, in, out []string) (*ort.DynamicAdvancedSession, error) {
	o, err := options()
	if err != nil {
		return nil, schemas.Errorf(schemas.Internal, op, "session options: %w", err)
	}
	defer o.Destroy()
	s, err := ort.NewDynamicAdvancedSessionWithONNXData(model, in, out, o)
	if err != nil {
		why := reason(err)
		if strings.Contains(why, "construct locale") {
			return nil, schemas.Errorf(schemas.Unavailable, op, "the model needs the system locale en_US.UTF-8, which is not installed (StringNormalizer): install it, as with `locale-gen en_US.UTF-8`")
		}
		return nil, schemas.Errorf(schemas.Invalid, op, "ONNX Runtime cannot load the model: %s", why)
	}
	return s, nil
}

func options() (*ort.SessionOptions, error) {
	o, err := ort.NewSessionOptions()
	if err != nil {
		return nil, err
	}
	for _, set := range []func() error{
		func() error { return o.SetIntraOpNumThreads(1) },
		func() error { return o.SetInterOpNumThreads(1) },
		// A pattern is remembered for each set of shapes that was seen: with a batch size that changes from run to run
		// that is memory without bound.
		func() error { return o.SetMemPattern(false) },
		// The arena keeps the peak of what runs took. That peak is bounded, because pieces and slots are; without it a run of
		// 1,024 rows with wide intermediates pays 1.5 times for pages that malloc maps and unmaps (measured).
		func() error { return o.SetCpuMemArena(true) },
		func() error { return o.SetLogSeverityLevel(ort.LoggingLevelFatal) },
		func() error { return o.AddSessionConfigEntry("session.intra_op.allow_spinning", "0") },
		func() error { return o.AddSessionConfigEntry("session.inter_op.allow_spinning", "0") },
		// What onnxfile has looked into is ONNX; the runtime must not take the bytes for anything else.
		func() error { return o.AddSessionConfigEntry("session.load_model_format", "ONNX") },
	} {
		if err := set(); err != nil {
			o.Destroy()
			return nil, err
		}
	}
	return o, nil
}

// runError turns a failed run into an error. The model passed its probe, so that what fails now fails for these rows
// (an index out of a table's range, a string that is no number); lack of memory is the exception.
func runError(op string, err error) error {
	why := reason(err)
	if l := strings.ToLower(why); strings.Contains(l, "bad_alloc") || strings.Contains(l, "allocate memory") {
		return schemas.Errorf(schemas.Unavailable, op, "the model ran out of memory: %s", why)
	}
	return schemas.Errorf(schemas.Invalid, op, "the model cannot run on these rows: %s", why)
}

// source is where ONNX Runtime says that an error arose: "/path/file.cc:123 type onnxruntime::Function(args) ".
var source = regexp.MustCompile(`/\S+\.(?:cc|cpp|h):\d+ (?:[\w:<>&*, ]*onnxruntime::[\w:~<>&*]+\([^)]*\)(?: const)?(?:::<lambda\(\)>)?(?: \[with [^]]*\])? ?)?`)

// reason cuts ONNX Runtime's text down to what a user can act on: one line, without its source files.
func reason(err error) string {
	s := err.Error()
	if _, after, ok := strings.Cut(s, "Status Message: "); ok {
		s = after
	}
	s = strings.TrimPrefix(strings.TrimPrefix(s, "Error creating C session: "), "Error running network: ")
	s = strings.TrimSpace(source.ReplaceAllString(strings.Join(strings.Fields(s), " "), ""))
	if len(s) > 300 {
		s = strings.ToValidUTF8(s[:297], "") + "..."
	}
	return s
}
