//go:build !linux

package bulk

import "log/slog"

// stepBack does nothing: only Linux sets the priority of one thread.
func stepBack(*slog.Logger) {}
