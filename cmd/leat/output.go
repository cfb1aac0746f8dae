package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"golang.org/x/term"
)

// isTerminal reports whether w is a terminal: only there colours, live lines and progress bars make sense.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// print writes v as JSON under --json, else calls table.
func (e *env) print(v any, table func(w io.Writer)) error {
	if e.json {
		enc := json.NewEncoder(e.out)
		enc.SetIndent("", "  ")
		return failed(enc.Encode(v))
	}
	table(e.out)
	return nil
}

// table writes aligned columns; cells are printed as they are.
func table(w io.Writer, head []string, rows [][]string) {
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintln(t, strings.Join(head, "\t"))
	for _, r := range rows {
		fmt.Fprintln(t, strings.Join(r, "\t"))
	}
	t.Flush()
}

// grid is table with what is a number aligned to the right.
func grid(w io.Writer, head []string, rows [][]string) {
	widths := make([]int, len(head))
	right := make([]bool, len(head))
	for i, h := range head {
		widths[i], right[i] = utf8.RuneCountInString(h), len(rows) > 0
		for _, r := range rows {
			widths[i] = max(widths[i], utf8.RuneCountInString(r[i]))
			if strings.Trim(r[i], "+-.,0123456789e") != "" || r[i] == "" {
				right[i] = false
			}
		}
	}
	for _, r := range append([][]string{head}, rows...) {
		var line strings.Builder
		for i, s := range r {
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(s))
			if right[i] {
				s, pad = pad+s, ""
			}
			line.WriteString(s + pad + "  ")
		}
		fmt.Fprintln(w, strings.TrimRight(line.String(), " "))
	}
}

// bold marks a heading on a terminal.
func (e *env) bold(s string) string {
	if !e.color {
		return s
	}
	return "\x1b[1m" + s + "\x1b[0m"
}

// timeLayout is how times stand in tables: local, with their zone.
const timeLayout = "2006-01-02 15:04:05Z07:00"

// ago writes how long ago t was, in its largest unit.
func ago(t time.Time) string {
	d := time.Since(t)
	switch {
	case t.IsZero():
		return "-"
	case d < time.Minute:
		return fmt.Sprintf("%ds ago", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm ago", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh ago", int(d.Hours()))
	}
	return fmt.Sprintf("%dd ago", int(d.Hours()/24))
}

// size writes bytes in binary units.
func size(n uint64) string {
	const k = 1024
	switch {
	case n < k:
		return fmt.Sprintf("%d B", n)
	case n < k*k:
		return fmt.Sprintf("%.1f KiB", float64(n)/k)
	case n < k*k*k:
		return fmt.Sprintf("%.1f MiB", float64(n)/(k*k))
	}
	return fmt.Sprintf("%.1f GiB", float64(n)/(k*k*k))
}

// count writes a number with thousands apart.
func count(n uint64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
