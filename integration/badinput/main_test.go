package badinput

import (
	"context"
	"flag"
	"fmt"
	"os"
	"testing"

	"github.com/leatstream/leat/integration/child"
)

var leat = flag.String("leat", "", "binary to test; empty: built from this tree")

const root = "../.."

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "leat-badinput-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if *leat == "" {
		if *leat, err = child.Build(context.Background(), root, dir, ""); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	return m.Run()
}
