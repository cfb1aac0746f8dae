package clients

import (
	"context"
	"regexp"
	"strconv"
	"testing"
	"time"
)

// TestBandit: examples/bandit replays a month through three bandits. In the end each of them asks the model that answers
// before anybody knows of a delay far more rarely than by chance, and they have lost less than choosing blindly loses.
func TestBandit(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	replay := build(t, ctx, "./examples/bandit", "bandit")
	s := start(t, ctx)
	out, err := run(ctx, replay, "-server", s.HTTP, "-flights", root+"/examples/flights", "-pipeline", root+"/examples/bandit/bandit.yaml",
		"-seeds", "3", "-per-day", "60", "-days", "20")
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	last := regexp.MustCompile(`20130920 +1200 +([0-9.]+) \+- +[0-9.]+ +([0-9.]+)`).FindStringSubmatch(out)
	early := regexp.MustCompile(`flights-early for (\d+) %`).FindStringSubmatch(out)
	if last == nil || early == nil {
		t.Fatalf("unexpected output:\n%s", out)
	}
	bandit, uniform, share := number(t, last[1]), number(t, last[2]), number(t, early[1])
	if bandit > 0.8*uniform || share > 20 {
		t.Errorf("nothing was learnt:\n%s", out)
	}
}

func number(t *testing.T, text string) float64 {
	t.Helper()
	v, err := strconv.ParseFloat(text, 64)
	if err != nil {
		t.Fatal(err)
	}
	return v
}
