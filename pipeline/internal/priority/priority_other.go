//go:build !linux

// Package priority has the threads of background work stand back behind those that somebody waits for.
package priority

// StepBack does nothing: only Linux sets the priority of one thread.
func StepBack(int) error { return nil }
