package faults

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/leatstream/leat/integration/child"
)

var (
	seed   = flag.Uint64("seed", 0, "of the moments of kills; 0: by the clock")
	binary = flag.String("leat", "", "binary to test; empty: built from this tree")
)

// root is the repository's.
const root = "../../.."

// suite builds the binary before the tests.
type suite struct{ m *testing.M }

func (s suite) Run() int {
	dir, err := os.MkdirTemp("", "leat-faults-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	defer http.DefaultClient.CloseIdleConnections() // package child asks with it
	if *seed == 0 {
		*seed = uint64(time.Now().UnixNano())
	}
	if *binary == "" {
		*binary, err = child.Build(context.Background(), root, dir, "")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return s.m.Run()
}

func TestMain(m *testing.M) {
	flag.Parse()
	goleak.VerifyTestMain(suite{m})
}
