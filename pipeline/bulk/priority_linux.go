package bulk

import (
	"log/slog"
	"runtime"
	"syscall"
)

// behindOnline is how much less than a request's thread a job's worker weighs with the system's scheduler: nice 10 is a
// ninth of the weight.
const behindOnline = 10

// stepBack binds the calling goroutine to a thread of its own that the system lets requests go before. The thread ends
// with the goroutine. Go's own scheduler knows no priorities, and a core that is left free is not the only one that a
// request's threads may wake up on.
func stepBack(log *slog.Logger) {
	runtime.LockOSThread()
	if err := syscall.Setpriority(syscall.PRIO_PROCESS, syscall.Gettid(), behindOnline); err != nil {
		log.Warn("jobs run at the priority of requests", "error", err)
	}
}
