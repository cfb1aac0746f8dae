package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// byteSize is a flag of bytes: a number, or one with KiB, MiB, GiB or TiB behind it.
type byteSize struct{ n *int64 }

var byteUnits = []struct {
	name string
	size int64
}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40}}

// Set reads the text of the flag.
func (b byteSize) Set(s string) error {
	unit, digits := int64(1), s
	for _, u := range byteUnits {
		if d, ok := strings.CutSuffix(s, u.name); ok {
			unit, digits = u.size, strings.TrimSpace(d)
		}
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 0 || n > math.MaxInt64/unit {
		return fmt.Errorf("want bytes, such as 1073741824 or 1GiB")
	}
	*b.n = n * unit
	return nil
}

// String writes the value in its largest whole unit.
func (b byteSize) String() string {
	if b.n == nil || *b.n == 0 {
		return ""
	}
	for i := len(byteUnits) - 1; i >= 0; i-- {
		if u := byteUnits[i]; *b.n%u.size == 0 {
			return strconv.FormatInt(*b.n/u.size, 10) + u.name
		}
	}
	return strconv.FormatInt(*b.n, 10)
}

// Type names the value in helps.
func (byteSize) Type() string { return "bytes" }
