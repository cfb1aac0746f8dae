//go:build leatfault

package fault

import (
	"os"
	"time"
)

// The faults.
var (
	ReplyFirst  = named("reply-first")  // a reply goes out before its record is appended
	AcceptFirst = named("accept-first") // an event is settled before its output is published
	InsertFirst = named("insert-first") // a chunk's result is inserted before its records are appended
	DoneFirst   = named("done-first")   // a job is stored as done before its file has its name
)

func named(fault string) bool { return os.Getenv("LEAT_FAULT") == fault }

// Widen waits between the two swapped steps: in life the gap is short and a kill in it rare; a test cannot wait for it.
func Widen() { time.Sleep(300 * time.Millisecond) }
