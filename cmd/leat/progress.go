package main

import (
	"io"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// bar shows how far something is: a bar that moves on a terminal.
type bar struct {
	p     *progressbar.ProgressBar
	total int64 // as newBar was told
}

// newBar counts to total; 0: to an end that is not known.
func newBar(w io.Writer, total int64, what string) *bar {
	most := total
	if most <= 0 {
		most = -1 // a spinner
	}
	o := []progressbar.Option{
		progressbar.OptionSetWriter(w), progressbar.OptionSetDescription(what), progressbar.OptionThrottle(100 * time.Millisecond),
		progressbar.OptionClearOnFinish(), progressbar.OptionSetWidth(30), progressbar.OptionSpinnerType(14),
		progressbar.OptionSetPredictTime(false), progressbar.OptionSetElapsedTime(false),
	}
	if what != "" { // else whoever describes it counts too
		o = append(o, progressbar.OptionShowCount(), progressbar.OptionShowIts(), progressbar.OptionSetItsString("rows"), progressbar.OptionSetPredictTime(true))
	}
	return &bar{progressbar.NewOptions64(most, o...), total}
}

func (b *bar) add(n int64) { _ = b.p.Add64(n) } // a bar that cannot be drawn is no failure

func (b *bar) end() { _ = b.p.Clear() }

func (b *bar) describe(s string) { b.p.Describe(s) }

// usualWidth is what a table may take where nobody can say how wide the page is.
const usualWidth = 120

// terminalWidth is the columns of w if it is a terminal.
func terminalWidth(w io.Writer) int {
	if f, ok := w.(*os.File); ok {
		if n, _, err := term.GetSize(int(f.Fd())); err == nil && n > 0 {
			return n
		}
	}
	return usualWidth
}

// newBytesBar counts bytes of a stream whose end is not known.
func newBytesBar(w io.Writer, what string) *bar {
	return &bar{p: progressbar.NewOptions64(-1, progressbar.OptionSetWriter(w), progressbar.OptionSetDescription(what), progressbar.OptionShowBytes(true),
		progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionClearOnFinish(), progressbar.OptionSpinnerType(14))}
}
