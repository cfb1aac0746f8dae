// Package route decides, and only decides: which arm of a split a key belongs to, whether a shadow samples it, and which
// arm of a bandit a row tries. What flows in is a key or a seed, named context columns as floats, and a bandit's State;
// what flows out is an arm and, of a bandit, the chance that it had. The executor in package pipeline acts on it.
//
// A bandit has three parts. A Plan is what its specification says, checked and compiled. A Fold is what its rewards add up
// to, up to a position of their stream; it can be written as a snapshot and read back. A State is what a decision reads:
// the numbers of a Fold at one position, immutable, so that it can be handed to deciding goroutines by one atomic pointer.
// Decide(plan, seed, context, state) is what can be derived again.
//
// Everything here is a pure function of its arguments: no clock, no goroutine, no I/O, no global randomness, and the same
// bits on every CPU: integers, or floats with each rounding written out (detmath.go). So a decision can be derived again
// from what the lineage recorded of it, and must come out equal.
//
// The packages beneath hold what the other nodes need of the same kind. Nothing here imports package pipeline, a
// connector, a scorer or the lineage.
package route
