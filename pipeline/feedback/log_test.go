package feedback_test

import (
	"log/slog"
	"testing"
)

// logTo shows what is logged with the test that it belongs to.
func logTo(t *testing.T) *slog.Logger { return slog.New(slog.NewTextHandler(t.Output(), nil)) }
