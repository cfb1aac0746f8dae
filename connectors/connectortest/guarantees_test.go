package connectortest

import (
	"flag"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write docs/kafka.md")

// What stands between these lines of docs/kafka.md is made.
const (
	made = "<!-- made by make generate from connectors/connectortest -->\n"
	end  = "<!-- end -->\n"
)

// TestGuarantees: docs/kafka.md has the table that follows from the claims. With -update it gets it.
func TestGuarantees(t *testing.T) {
	const page = "../../docs/kafka.md"
	b, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(b), made)
	have, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no lines %q and %q", page, made, end)
	}
	want := Guarantees()
	if strings.Count(want, "\n") < 8 || !strings.Contains(want, "| yes |") {
		t.Fatalf("the table is\n%s", want)
	}
	switch {
	case have == want:
	case *update:
		if err := os.WriteFile(page, []byte(before+made+want+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
	default:
		t.Errorf("%s is stale: make generate. It should have\n%s", page, want)
	}
}
