package priority

import (
	"runtime"
	"syscall"
)

// StepBack binds the calling goroutine to a thread of its own that the system lets others go before: nice 10 is a ninth
// of a request's weight, nice 19 a sixtieth. The thread ends with the goroutine, since priority that was given away does
// not come back. An error leaves the goroutine bound, at the priority of requests.
func StepBack(nice int) error {
	runtime.LockOSThread()
	return syscall.Setpriority(syscall.PRIO_PROCESS, syscall.Gettid(), nice)
}
