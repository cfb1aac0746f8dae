package main

import (
	"fmt"
	"io"
	"math"
	"strings"
)

// print writes the regret: what was lost against the arm that turned out the best, as it grew.
func (r *result) print(w io.Writer) {
	best, rows := 0, 0
	sums := make([]float64, len(r.arms))
	for _, n := range r.rows {
		rows += n
	}
	for a, days := range r.arms {
		for _, v := range days {
			sums[a] += v
		}
		if sums[a] > sums[best] {
			best = a
		}
	}
	fmt.Fprintf(w, "%d departures on %d days, %d bandits\n\n", rows, len(r.rows), len(r.got))
	fmt.Fprintf(w, "%-14s %12s\n", "ARM", "MEAN REWARD")
	for a, name := range arms {
		mark := ""
		if a == best {
			mark = "  the best"
		}
		fmt.Fprintf(w, "%-14s %12.4f%s\n", name, sums[a]/float64(rows), mark)
	}
	fmt.Fprintf(w, "\nRegret, in rewards: what %s would have had more, so far\n\n", arms[best])
	fmt.Fprintf(w, "%-10s %10s %18s %10s\n", "UNTIL", "DEPARTURES", "BANDIT", "UNIFORM")
	seen, uniform := 0, 0.0
	regret := make([]float64, len(r.got))
	most := r.uniform(best)
	for t, date := range r.dates {
		seen += r.rows[t]
		for a := range arms {
			uniform += (r.arms[best][t] - r.arms[a][t]) / float64(len(arms))
		}
		for i := range regret {
			regret[i] += r.arms[best][t] - r.got[i][t]
		}
		if (t+1)%every(len(r.dates)) != 0 && t != len(r.dates)-1 {
			continue
		}
		mean, sd := moments(regret)
		fmt.Fprintf(w, "%-10s %10d %10.1f +- %4.1f %10.1f  %s\n", date, seen, mean, sd, uniform, curve(mean, uniform, most))
	}
	shares := make([]float64, len(arms))
	for _, chose := range r.chose {
		for a, n := range chose {
			shares[a] += n / sum(chose) / float64(len(r.chose))
		}
	}
	fmt.Fprintf(w, "\n+- is the standard deviation over the bandits. They chose %s for %.0f %%", arms[0], 100*shares[0])
	for a := range arms[1:] {
		fmt.Fprintf(w, ", %s for %.0f %%", arms[a+1], 100*shares[a+1])
	}
	fmt.Fprintln(w, ".")
}

// every is after how many days a line is printed: some twelve in all.
func every(days int) int { return max(1, (days+11)/12) }

// uniform is the regret, at the end, of choosing blindly.
func (r *result) uniform(best int) (sum float64) {
	for t := range r.dates {
		for a := range arms {
			sum += (r.arms[best][t] - r.arms[a][t]) / float64(len(arms))
		}
	}
	return sum
}

// width of the curve, in characters.
const width = 40

// curve draws both regrets on one line: * the bandits', o that of choosing blindly.
func curve(bandit, uniform, most float64) string {
	line := []byte(strings.Repeat(" ", width+1))
	at := func(v float64) int { return min(width, max(0, int(math.Round(v/most*width)))) }
	line[at(uniform)] = 'o'
	line[at(bandit)] = '*'
	return "|" + strings.TrimRight(string(line), " ")
}

func moments(v []float64) (mean, sd float64) {
	for _, x := range v {
		mean += x / float64(len(v))
	}
	for _, x := range v {
		sd += (x - mean) * (x - mean)
	}
	if len(v) < 2 {
		return mean, 0
	}
	return mean, math.Sqrt(sd / float64(len(v)-1))
}
