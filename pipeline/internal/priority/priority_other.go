//go:build !linux

package priority

// StepBack does nothing: only Linux sets the priority of one thread.
func StepBack(int) error { return nil }
