// Package schemastest makes schemas and batches for tests: every dtype, tensors, nulls, and rows from a seed.
package schemastest
