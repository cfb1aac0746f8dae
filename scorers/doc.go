// Package scorers says what a loaded model version must do; the packages beneath it do it, and scorertest proves it.
//
// A batch of typed rows goes in, a batch of as many rows comes out. Scorers know no topics, no pipelines, no records.
package scorers
