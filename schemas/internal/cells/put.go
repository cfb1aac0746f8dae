package cells

import (
	"fmt"
	"math"
	"time"
	"unicode/utf8"
	"unsafe"

	"github.com/leatstream/leat/schemas"
)

// put appends one element of the type, or says why it cannot.
func put(c *schemas.Column, t schemas.DType, v Cell) string {
	switch t {
	case schemas.Float32:
		f, ok := v.number()
		if !ok {
			return v.unfit(t)
		}
		return putFloat32(c, v, f)
	case schemas.Float64:
		f, ok := v.number()
		if !ok {
			return v.unfit(t)
		}
		schemas.Append(c, f)
	case schemas.Float16:
		f, ok := v.number()
		if !ok {
			return v.unfit(t)
		}
		h := schemas.Float16Bits(f)
		if h&0x7fff == 0x7c00 && !math.IsInf(f, 0) {
			return outOfRange(v, t)
		}
		schemas.Append(c, h)
	case schemas.String, schemas.Binary:
		if v.kind != text && v.kind != binary {
			return v.unfit(t)
		}
		b := v.bytes()
		if t == schemas.String && !utf8.Valid(b) {
			return "not UTF-8"
		}
		if len(b) > schemas.MaxText-len(c.Data()) { // the name of an enum may be longer than what stands for it
			return "more than 2 GiB of text in one batch"
		}
		c.AppendText(b)
	case schemas.Bool:
		if v.kind != boolean {
			return v.unfit(t)
		}
		schemas.Append(c, uint8(v.bits))
	case schemas.Timestamp:
		return putTime(c, v)
	case schemas.Uint64:
		u, why := v.uint64()
		if why != "" {
			return why
		}
		schemas.Append(c, u)
	default:
		return putInt(c, t, v)
	}
	return ""
}

// putFloat32 rounds once, from the value itself: a long integer is not rounded to a float64 first.
func putFloat32(c *schemas.Column, v Cell, f float64) string {
	var g float32
	switch v.kind {
	case integer:
		g = float32(int64(v.bits))
	case unsigned:
		g = float32(v.bits)
	default:
		if g = float32(f); math.Abs(float64(g)) > math.MaxFloat32 && math.Abs(f) <= math.MaxFloat64 {
			return outOfRange(v, schemas.Float32)
		}
	}
	schemas.Append(c, g)
	return ""
}

// number returns the value as a float64, rounded if it must be.
func (v Cell) number() (float64, bool) {
	switch v.kind {
	case float:
		return math.Float64frombits(v.bits), true
	case integer:
		return float64(int64(v.bits)), true
	case unsigned, boolean:
		return float64(v.bits), true
	}
	return 0, false
}

// putInt appends an integer of any type but uint64, all of which int64 holds.
func putInt(c *schemas.Column, t schemas.DType, v Cell) string {
	var i int64
	switch v.kind {
	case integer, boolean:
		i = int64(v.bits)
	case unsigned:
		if v.bits > math.MaxInt64 {
			return outOfRange(v, t)
		}
		i = int64(v.bits)
	case float:
		f := math.Float64frombits(v.bits)
		if f != math.Trunc(f) {
			return fmt.Sprintf("want an integer of %s, got %v", t, f)
		}
		if !(f >= -1<<63 && f < 1<<63) {
			return outOfRange(v, t)
		}
		i = int64(f)
	default:
		return v.unfit(t)
	}
	ok := true
	switch t {
	case schemas.Int8:
		ok = i == int64(int8(i))
		schemas.Append(c, int8(i))
	case schemas.Int16:
		ok = i == int64(int16(i))
		schemas.Append(c, int16(i))
	case schemas.Int32:
		ok = i == int64(int32(i))
		schemas.Append(c, int32(i))
	case schemas.Int64:
		schemas.Append(c, i)
	case schemas.Uint8:
		ok = i == int64(uint8(i))
		schemas.Append(c, uint8(i))
	case schemas.Uint16:
		ok = i == int64(uint16(i))
		schemas.Append(c, uint16(i))
	case schemas.Uint32:
		ok = i == int64(uint32(i))
		schemas.Append(c, uint32(i))
	}
	if !ok {
		return outOfRange(v, t)
	}
	return ""
}

func (v Cell) uint64() (uint64, string) {
	switch v.kind {
	case unsigned, boolean:
		return v.bits, ""
	case integer:
		if int64(v.bits) < 0 {
			return 0, outOfRange(v, schemas.Uint64)
		}
		return v.bits, ""
	case float:
		f := math.Float64frombits(v.bits)
		if f != math.Trunc(f) {
			return 0, fmt.Sprintf("want an integer of uint64, got %v", f)
		}
		if !(f >= 0 && f < 1<<64) {
			return 0, outOfRange(v, schemas.Uint64)
		}
		return uint64(f), ""
	}
	return 0, v.unfit(schemas.Uint64)
}

func putTime(c *schemas.Column, v Cell) string {
	switch v.kind {
	case instant, integer:
		schemas.Append(c, int64(v.bits))
	case unsigned:
		if v.bits > math.MaxInt64 {
			return outOfRange(v, schemas.Timestamp)
		}
		schemas.Append(c, int64(v.bits))
	case text:
		ns, why := ParseTime(v.bytes())
		if why != "" {
			return why
		}
		schemas.Append(c, ns)
	default:
		return v.unfit(schemas.Timestamp)
	}
	return ""
}

// ParseTime reads RFC 3339 and returns nanoseconds since the Unix epoch, or says why not.
func ParseTime(b []byte) (ns int64, why string) {
	t, err := time.Parse(time.RFC3339Nano, unsafe.String(unsafe.SliceData(b), len(b))) // which keeps none of it
	if err != nil {
		return 0, fmt.Sprintf("%q is not a time as in RFC 3339, nor integer nanoseconds", clip(b))
	}
	if ns = t.UnixNano(); !time.Unix(0, ns).Equal(t) {
		return 0, fmt.Sprintf("%q is out of the range of nanosecond timestamps (1677-09-21 to 2262-04-11)", clip(b))
	}
	return ns, ""
}

// Scaled is a Time of v units of the given number of nanoseconds; false if that is out of range.
func Scaled(v, unit int64) (Cell, bool) {
	if v > math.MaxInt64/unit || v < math.MinInt64/unit {
		return Cell{}, false
	}
	return Time(v * unit), true
}

func (v Cell) unfit(t schemas.DType) string { return v.what() + " cannot be a value of " + t.String() }

func outOfRange(v Cell, t schemas.DType) string {
	switch v.kind {
	case integer:
		return fmt.Sprintf("%d is out of the range of %s", int64(v.bits), t)
	case unsigned:
		return fmt.Sprintf("%d is out of the range of %s", v.bits, t)
	}
	return fmt.Sprintf("%v is out of the range of %s", math.Float64frombits(v.bits), t)
}

func clip(b []byte) string {
	if len(b) > 40 {
		return string(b[:37]) + "..."
	}
	return string(b)
}
