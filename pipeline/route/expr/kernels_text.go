package expr

import (
	"math"
	"regexp"
	"strconv"
	"time"
	"unicode/utf8"
	"unsafe"

	"github.com/leatstream/leat/schemas"
)

// made is the text that a kernel appended to the frame's since from. The frame may move its text; what was made stays
// valid until the frame runs again.
func (fr *frame) made(from int) string {
	b := fr.text[from:]
	return unsafe.String(unsafe.SliceData(b), len(b))
}

func concatKernel(site state) kernel {
	return func(fr *frame, d *register, a []*register) {
		for i, x := range a[0].s {
			y := a[1].s[i]
			if len(x)+len(y) > maxText {
				d.s[i] = ""
				d.fail(fr, i, site)
				continue
			}
			at := len(fr.text)
			fr.text = append(append(fr.text, x...), y...)
			d.s[i] = fr.made(at)
		}
	}
}

// caseKernel changes the letters of ASCII alone.
func caseKernel(upper bool) kernel {
	from, to := byte('A'), byte('Z')
	if upper {
		from, to = 'a', 'z'
	}
	return func(fr *frame, d *register, a []*register) {
		for i, s := range a[0].s {
			at := len(fr.text)
			fr.text = append(fr.text, s...)
			for j, b := range fr.text[at:] {
				if b >= from && b <= to {
					fr.text[at+j] = b ^ 0x20
				}
			}
			d.s[i] = fr.made(at)
		}
	}
}

func testTexts(f func(string, string) bool) kernel {
	return func(_ *frame, d *register, a []*register) {
		for i, s := range a[0].s {
			d.b[i] = f(s, a[1].s[i])
		}
	}
}

func matchTexts(re *regexp.Regexp) kernel {
	return func(_ *frame, d *register, a []*register) {
		for i, s := range a[0].s {
			d.b[i] = re.MatchString(s)
		}
	}
}

func runes(_ *frame, d *register, a []*register) {
	for i, s := range a[0].s {
		d.i[i] = int64(utf8.RuneCountInString(s))
	}
}

func bytesSize(_ *frame, d *register, a []*register) {
	for i, s := range a[0].s {
		d.i[i] = int64(len(s))
	}
}

// castKernel converts w elements a row from one kind to another; nil if there is no such conversion. site makes the state
// of rows that cannot be converted.
func castKernel(from, to kind, d schemas.DType, w int, site func(string) state) kernel {
	switch to {
	case kDouble:
		return castDouble(from, d, w, site)
	case kInt:
		return castInt(from, d, w, site)
	case kUint:
		return castUint(from, w, site)
	case kString:
		return castString(from, site)
	case kBool:
		if from == kString {
			return convert(gs, gb, w, site(`the text is no bool: want "true" or "false"`), func(s string) (bool, bool) {
				b, err := strconv.ParseBool(s)
				return b, err == nil
			})
		}
	case kBytes:
		return func(_ *frame, d *register, a []*register) { copy(d.s, a[0].s) }
	case kTime:
		return castTime(from, w, site)
	}
	return nil
}

// convert converts one by one; what cannot be is a failed row.
func convert[A, B any](src func(*register) []A, dst func(*register) []B, w int, site state, f func(A) (B, bool)) kernel {
	return func(fr *frame, d *register, a []*register) {
		z := dst(d)
		for i, v := range src(a[0]) {
			b, ok := f(v)
			if !ok {
				d.fail(fr, i/w, site)
			}
			z[i] = b
		}
	}
}

func castDouble(from kind, d schemas.DType, w int, site func(string) state) kernel {
	text := func(s string) (float64, bool) {
		f, err := strconv.ParseFloat(s, 64)
		return f, err == nil
	}
	if d == schemas.Float64 {
		if from == kString {
			return convert(gs, gf, w, site("the text is no number"), text)
		}
		return toDouble(from)
	}
	narrow := func(f float64) (float64, bool) { return fitFloat(f, d) }
	const what = "the number does not fit a float32"
	switch from {
	case kDouble:
		return convert(gf, gf, w, site(what), narrow)
	case kInt:
		return convert(gi, gf, w, 0, func(v int64) (float64, bool) { return float64(float32(v)), true })
	case kUint:
		return convert(gu, gf, w, 0, func(v uint64) (float64, bool) { return float64(float32(v)), true })
	case kString:
		return convert(gs, gf, w, site("the text is no number, or none that fits a float32"), func(s string) (float64, bool) {
			f, ok := text(s)
			g, fits := narrow(f)
			return g, ok && fits
		})
	}
	return toDouble(from)
}

func castInt(from kind, d schemas.DType, w int, site func(string) state) kernel {
	what := "the number does not fit an " + map[bool]string{true: "int", false: "int32"}[d == schemas.Int64]
	switch from {
	case kInt:
		return convert(gi, gi, w, site(what), func(v int64) (int64, bool) { return v, fitInt(v, d) })
	case kUint:
		return convert(gu, gi, w, site(what), func(v uint64) (int64, bool) { return int64(v), fitUint(v, d) })
	case kDouble:
		return convert(gf, gi, w, site(what), func(v float64) (int64, bool) {
			if !(v > math.MinInt64 && v < math.MaxInt64) { // as cel-go has it: the least int64 itself is out of range
				return 0, false
			}
			return int64(v), fitInt(int64(v), d)
		})
	case kString:
		return convert(gs, gi, w, site("the text is no whole number that fits"), func(s string) (int64, bool) {
			v, err := strconv.ParseInt(s, 10, 8*d.Size())
			return v, err == nil
		})
	case kBool:
		return func(_ *frame, d *register, a []*register) {
			for i, v := range a[0].b {
				d.i[i] = 0
				if v {
					d.i[i] = 1
				}
			}
		}
	case kTime: // seconds, towards the past
		return convert(gi, gi, w, 0, func(v int64) (int64, bool) { return floorDiv(v, int64(time.Second)), true })
	case kDuration:
		return func(_ *frame, d *register, a []*register) { copy(d.i, a[0].i) }
	}
	return nil
}

func castUint(from kind, w int, site func(string) state) kernel {
	const what = "the number does not fit a uint"
	switch from {
	case kInt:
		return convert(gi, gu, w, site(what), func(v int64) (uint64, bool) { return uint64(v), v >= 0 })
	case kDouble:
		return convert(gf, gu, w, site(what), func(v float64) (uint64, bool) {
			if !(v >= 0 && v < 1<<64) {
				return 0, false
			}
			return uint64(v), true
		})
	case kString:
		return convert(gs, gu, w, site("the text is no whole number of 0 or more that fits"), func(s string) (uint64, bool) {
			v, err := strconv.ParseUint(s, 10, 64)
			return v, err == nil
		})
	case kBool:
		return func(_ *frame, d *register, a []*register) {
			for i, v := range a[0].b {
				d.u[i] = 0
				if v {
					d.u[i] = 1
				}
			}
		}
	}
	return nil
}

func castString(from kind, site func(string) state) kernel {
	write := func(f func(b []byte, r *register, i int) []byte) kernel {
		return func(fr *frame, d *register, a []*register) {
			for i := range d.s {
				at := len(fr.text)
				fr.text = f(fr.text, a[0], i)
				d.s[i] = fr.made(at)
			}
		}
	}
	switch from {
	case kInt:
		return write(func(b []byte, r *register, i int) []byte { return strconv.AppendInt(b, r.i[i], 10) })
	case kUint:
		return write(func(b []byte, r *register, i int) []byte { return strconv.AppendUint(b, r.u[i], 10) })
	case kDouble:
		return write(func(b []byte, r *register, i int) []byte { return strconv.AppendFloat(b, r.f[i], 'g', -1, 64) })
	case kBool:
		return write(func(b []byte, r *register, i int) []byte { return strconv.AppendBool(b, r.b[i]) })
	case kTime:
		return write(func(b []byte, r *register, i int) []byte {
			return time.Unix(0, r.i[i]).UTC().AppendFormat(b, time.RFC3339Nano)
		})
	case kBytes:
		return convert(gs, gs, 1, site("the bytes are not UTF-8"), func(s string) (string, bool) { return s, utf8.ValidString(s) })
	}
	return nil
}

// What int64 nanoseconds reach, in whole seconds.
const (
	minSeconds = math.MinInt64/int64(time.Second) + 1
	maxSeconds = math.MaxInt64/int64(time.Second) - 1
)

func castTime(from kind, w int, site func(string) state) kernel {
	switch from {
	case kInt:
		return convert(gi, gi, w, site("a time out of range (years 1678 to 2262)"), func(v int64) (int64, bool) {
			if v < minSeconds || v > maxSeconds {
				return 0, false
			}
			return v * int64(time.Second), true
		})
	case kString:
		return convert(gs, gi, w, site("the text is no time in RFC 3339 of the years 1678 to 2262"), func(s string) (int64, bool) {
			t, err := time.Parse(time.RFC3339, s)
			if err != nil || t.Unix() < minSeconds || t.Unix() > maxSeconds {
				return 0, false
			}
			return t.UnixNano(), true
		})
	}
	return nil
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

// timeFields are the parts of a time, zero-based as CEL has them; getDate alone counts from 1.
var timeFields = map[string]func(t time.Time) int{
	"getFullYear":     time.Time.Year,
	"getMonth":        func(t time.Time) int { return int(t.Month()) - 1 },
	"getDate":         time.Time.Day,
	"getDayOfMonth":   func(t time.Time) int { return t.Day() - 1 },
	"getDayOfWeek":    func(t time.Time) int { return int(t.Weekday()) },
	"getDayOfYear":    func(t time.Time) int { return t.YearDay() - 1 },
	"getHours":        time.Time.Hour,
	"getMinutes":      time.Time.Minute,
	"getSeconds":      time.Time.Second,
	"getMilliseconds": func(t time.Time) int { return t.Nanosecond() / 1e6 },
}

// timeKernel takes a part of times, offset nanoseconds east of UTC.
func timeKernel(part func(time.Time) int, offset int64) kernel {
	return func(_ *frame, d *register, a []*register) {
		for i, ns := range a[0].i {
			d.i[i] = int64(part(time.Unix(0, ns).Add(time.Duration(offset)).UTC()))
		}
	}
}

// durationField is a duration as a whole number of units, towards zero.
func durationField(unit int64) kernel {
	return func(_ *frame, d *register, a []*register) {
		for i, v := range a[0].i {
			d.i[i] = v / unit
		}
	}
}
