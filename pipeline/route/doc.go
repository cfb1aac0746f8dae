// Package route decides, and only decides: which arm of a split a key belongs to and whether a shadow sees it. What flows
// in is a key or a seed; what flows out is an index. The executor in package pipeline acts on it.
//
// Everything here is a pure function of its arguments: no clock, no goroutine, no I/O, no global randomness, and the same
// bits on every CPU. So a decision can be derived again from what the lineage recorded of it, and must come out equal.
//
// The packages beneath hold what the other nodes need of the same kind. Nothing here imports package pipeline, a
// connector, a scorer or the lineage.
package route
