package crash

import (
	"context"
	"flag"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/leatstream/leat/integration/child"
)

var (
	rounds = flag.Int("rounds", 30, "kills of TestCrash")
	seed   = flag.Uint64("seed", 0, "of the moments and kinds of kills; 0: by the clock")
	binary = flag.String("leat", "", "binary to test; empty: built from this tree")
)

// root is the repository's.
const root = "../.."

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "leat-crash-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	ctx := context.Background()
	if *seed == 0 {
		*seed = uint64(time.Now().UnixNano())
	}
	if *binary == "" {
		*binary, err = child.Build(ctx, root, dir, "")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}
