package route

import "math"

// latin is a latin hypercube (McKay, Beckman and Conover 1979) of a plan: for each arm the same n normal values, the middles
// of n equal slices of the distribution, in an order of its own. A row of the pipeline shifts each arm's order by a draw of
// its seed: over all shifts each pair of values meets equally often, so the estimate has no bias but for the slices'
// width, and its variance is that of n independent draws or less, but for a factor of n/(n-1) (Owen 1997); of a few arms it
// is about 0.4 of it. It costs a fifth of drawing anew. Immutable.
type latin struct {
	n      int
	values []float64 // by arm
}

// maxLatin bounds arms * draws: 32 MiB.
const maxLatin = 1 << 22

func newLatin(arms, n int) *latin {
	l := &latin{n: n, values: make([]float64, arms*n)}
	for i := range n {
		l.values[i] = normalQuantile((float64(i) + 0.5) / float64(n))
	}
	for arm := arms - 1; arm >= 0; arm-- {
		row := l.values[arm*n:][:n]
		copy(row, l.values[:n])
		var d draws
		d.seed(uint64(arm), laneLatin)
		for i := n - 1; i > 0; i-- {
			j := d.below(i + 1)
			row[i], row[j] = row[j], row[i]
		}
	}
	return l
}

// count adds to wins how often of n times each arm's mean + width * normal value is the highest. Of equal ones the last
// wins every other time, else the first.
func (l *latin) count(wins *[MaxArms]int32, seed uint64, mean, width []float64) {
	var d draws
	d.seed(seed, laneEstimate)
	var at [MaxArms]int
	for arm := range mean {
		at[arm] = d.below(l.n)
	}
	for i := range l.n {
		arm, most := 0, math.Inf(-1)
		for k, m := range mean {
			v := m + float64(width[k]*l.values[k*l.n+at[k]])
			if at[k]++; at[k] == l.n {
				at[k] = 0
			}
			if v > most || v == most && i&1 == 1 {
				arm, most = k, v
			}
		}
		wins[arm]++
	}
}

// normalQuantile returns the inverse of the standard normal distribution at p in (0, 1), off by less than 1.2e-9 of its
// value (P. J. Acklam, "An algorithm for computing the inverse normal cumulative distribution function", 2000).
func normalQuantile(p float64) float64 {
	const tail = 0.02425
	switch {
	case p < tail:
		return tailQuantile(math.Sqrt(float64(-2 * ln(p))))
	case p > 1-tail:
		return -tailQuantile(math.Sqrt(float64(-2 * ln(1-p))))
	}
	q := p - 0.5
	r := float64(q * q)
	over := polynomial(r, -3.969683028665376e+01, 2.209460984245205e+02, -2.759285104469687e+02, 1.383577518672690e+02,
		-3.066479806614716e+01, 2.506628277459239e+00)
	under := polynomial(r, -5.447609879822406e+01, 1.615858368580409e+02, -1.556989798598866e+02, 6.680131188771972e+01,
		-1.328068155288572e+01, 1)
	return float64(over*q) / under
}

func tailQuantile(q float64) float64 {
	return polynomial(q, -7.784894002430293e-03, -3.223964580411365e-01, -2.400758277161838e+00, -2.549732539343734e+00,
		4.374664141464968e+00, 2.938163982698783e+00) /
		polynomial(q, 7.784695709041462e-03, 3.224671290700398e-01, 2.445134137142996e+00, 3.754408661907416e+00, 1)
}

// polynomial is Horner's rule, the highest coefficient first.
func polynomial(x float64, coefficients ...float64) (v float64) {
	for _, c := range coefficients {
		v = float64(v*x) + c
	}
	return v
}
