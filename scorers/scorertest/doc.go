// Package scorertest proves a scorer: one suite of checks that every implementation of scorers.Scorer passes.
//
// A fixture says how to open a scorer and which rows it takes; the probe's class says what may differ between batch sizes.
// Each check is a function that returns an error, so that the suite's own test can plant faults and see them caught.
//
// It holds no scorer of its own and is imported by tests only.
package scorertest
