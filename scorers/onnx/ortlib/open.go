package ortlib

import (
	"fmt"
	"sync"

	ort "github.com/yalue/onnxruntime_go"

	"github.com/leatstream/leat/schemas"
)

// opened is the library of this process. ONNX Runtime keeps one environment a process, and its Go binding one library.
var opened struct {
	mu  sync.Mutex
	lib Library // zero until a library is open
}

// Open finds the library, opens it and starts ONNX Runtime's environment; later calls return the library that is open,
// whatever they search for. A failure changes nothing, so that a later call, after a Fetch, may succeed. The library is
// never closed again: models may be in use. Safe for concurrent use. Errors are Unavailable and say what to run.
func Open(s Search) (Library, error) {
	const op = "ortlib.Open"
	opened.mu.Lock()
	defer opened.mu.Unlock()
	if opened.lib.Path != "" {
		return opened.lib, nil
	}
	l, err := Find(s)
	if err != nil {
		return Library{}, err
	}
	ort.SetSharedLibraryPath(l.Path)
	// Fatal only: a model's error comes back as an error, and is not for stderr as well.
	if err := ort.InitializeEnvironment(ort.WithLogLevelFatal()); err != nil {
		return Library{}, schemas.Errorf(schemas.Unavailable, op, "%s (from %s) is no ONNX Runtime %s (%v): %s", l.Path, l.Origin, Version, err, remedy)
	}
	if v := ort.GetVersion(); v != Version {
		err := schemas.Errorf(schemas.Unavailable, op, "%s (from %s) is ONNX Runtime %s, and %s is needed: %s", l.Path, l.Origin, v, Version, remedy)
		return Library{}, shut(err)
	}
	if err := ort.DisableTelemetry(); err != nil {
		return Library{}, shut(schemas.Errorf(schemas.Unavailable, op, "turning telemetry off: %w", err))
	}
	opened.lib = l
	return l, nil
}

// shut closes a library that was opened and is not to be used, and returns why.
func shut(why *schemas.Error) error {
	if err := ort.DestroyEnvironment(); err != nil {
		why.Err = fmt.Errorf("%w (and closing it: %v)", why.Err, err)
	}
	return why
}
