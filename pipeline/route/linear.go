package route

import "math"

// linear is an arm's ridge regression, as deciding reads it: with A = ridge*I + sum of x*x' and b = sum of r*x, the Cholesky
// factor L of A (A = L*L') and theta = A⁻¹b. It is worked out anew from exact sums (Li et al. 2010 update A; its inverse by
// Sherman and Morrison would gather the rounding of each update, and remember the order they came in). Immutable.
type linear struct {
	dim   int
	lower []float64 // L below its diagonal, by rows: row i at i*(i-1)/2
	recip []float64 // 1 / L[i][i]
	theta []float64
}

// newLinear factors an arm's sums: dim^3/6 products.
func newLinear(s *armSums, ridge float64) *linear {
	d := len(s.xr)
	m := &linear{dim: d, lower: make([]float64, d*(d-1)/2), recip: make([]float64, d), theta: make([]float64, d)}
	at := 0
	for i := range d {
		row := m.lower[i*(i-1)/2:][:i]
		for j := range i {
			v := s.xx[at].float(2 * unitBits)
			at++
			for k, other := range m.lower[j*(j-1)/2:][:j] {
				v -= float64(row[k] * other)
			}
			row[j] = float64(v * m.recip[j])
		}
		v := s.xx[at].float(2*unitBits) + ridge
		at++
		for _, l := range row {
			v -= float64(l * l)
		}
		// A pivot is at least the least eigenvalue of A, which is at least ridge; less is rounding.
		m.recip[i] = 1 / math.Sqrt(max(v, ridge))
	}
	for i := range m.theta {
		v := s.xr[i].float(2 * unitBits)
		for k, l := range m.lower[i*(i-1)/2:][:i] {
			v -= float64(l * m.theta[k])
		}
		m.theta[i] = float64(v * m.recip[i])
	}
	for i := d - 1; i >= 0; i-- {
		v := m.theta[i]
		for k := i + 1; k < d; k++ {
			v -= float64(m.lower[k*(k-1)/2+i] * m.theta[k])
		}
		m.theta[i] = float64(v * m.recip[i])
	}
	return m
}

// at returns theta·x and sqrt(x'A⁻¹x), which is the length of L⁻¹x. x has dim values.
func (m *linear) at(x []float64) (mean, width float64) {
	var y [MaxContext + 1]float64
	square := 0.0
	row := m.lower
	for i, v := range x[:m.dim] {
		mean += float64(m.theta[i] * v)
		for k, l := range row[:i] {
			v -= float64(l * y[k])
		}
		row = row[i:]
		v = float64(v * m.recip[i])
		y[i] = v
		square += float64(v * v)
	}
	return mean, math.Sqrt(square)
}
