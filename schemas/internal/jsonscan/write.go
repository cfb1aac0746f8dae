package jsonscan

import (
	"encoding/base64"
	"math"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/leatstream/leat/schemas"
)

// AppendRow appends row i of a column as JSON: an element, null, or an array nested as the tensor's shape is.
func AppendRow(dst []byte, c *schemas.Column, i int) []byte {
	if c.IsNull(i) {
		return append(dst, "null"...)
	}
	f := c.Field()
	if f.Shape == nil {
		return AppendElement(dst, c, f.Type, i)
	}
	dst, _ = appendNested(dst, c, f, f.Shape, i*c.Width())
	return dst
}

func appendNested(dst []byte, c *schemas.Column, f *schemas.Field, shape []int, e int) ([]byte, int) {
	dst = append(dst, '[')
	for k := range shape[0] {
		if k > 0 {
			dst = append(dst, ',')
		}
		if len(shape) > 1 {
			dst, e = appendNested(dst, c, f, shape[1:], e)
		} else {
			dst = AppendElement(dst, c, f.Type, e)
			e++
		}
	}
	return append(dst, ']'), e
}

// AppendElement appends element e of a column, whose type is t, as JSON: floats in the shortest form that reads back
// to the same bits, timestamps as RFC 3339, binary as base64.
func AppendElement(dst []byte, c *schemas.Column, t schemas.DType, e int) []byte {
	switch t {
	case schemas.Bool:
		return strconv.AppendBool(dst, c.Data()[e] != 0)
	case schemas.Int8:
		return strconv.AppendInt(dst, int64(schemas.Values[int8](c)[e]), 10)
	case schemas.Int16:
		return strconv.AppendInt(dst, int64(schemas.Values[int16](c)[e]), 10)
	case schemas.Int32:
		return strconv.AppendInt(dst, int64(schemas.Values[int32](c)[e]), 10)
	case schemas.Int64:
		return strconv.AppendInt(dst, schemas.Values[int64](c)[e], 10)
	case schemas.Uint8:
		return strconv.AppendUint(dst, uint64(schemas.Values[uint8](c)[e]), 10)
	case schemas.Uint16:
		return strconv.AppendUint(dst, uint64(schemas.Values[uint16](c)[e]), 10)
	case schemas.Uint32:
		return strconv.AppendUint(dst, uint64(schemas.Values[uint32](c)[e]), 10)
	case schemas.Uint64:
		return strconv.AppendUint(dst, schemas.Values[uint64](c)[e], 10)
	case schemas.Float16:
		return appendFloat16(dst, schemas.Values[uint16](c)[e])
	case schemas.Float32:
		return appendFloat(dst, float64(schemas.Values[float32](c)[e]), 32)
	case schemas.Float64:
		return appendFloat(dst, schemas.Values[float64](c)[e], 64)
	case schemas.Timestamp:
		dst = append(dst, '"')
		dst = time.Unix(0, schemas.Values[int64](c)[e]).UTC().AppendFormat(dst, time.RFC3339Nano)
		return append(dst, '"')
	case schemas.Binary:
		dst = append(dst, '"')
		dst = base64.StdEncoding.AppendEncode(dst, c.Text(e))
		return append(dst, '"')
	default:
		return AppendString(dst, c.Text(e))
	}
}

// appendFloat writes as encoding/json does: an exponent below 1e-6 and from 1e21 on.
func appendFloat(dst []byte, f float64, bits int) []byte {
	if special := f - f; special != 0 { // NaN or infinite
		return appendSpecial(dst, f)
	}
	a := math.Abs(f)
	form := byte('f')
	if a != 0 && (a < 1e-6 || a >= 1e21) {
		form = 'e'
	}
	return strconv.AppendFloat(dst, f, form, -1, bits)
}

func appendSpecial(dst []byte, f float64) []byte {
	switch {
	case math.IsInf(f, 1):
		return append(dst, `"Infinity"`...)
	case math.IsInf(f, -1):
		return append(dst, `"-Infinity"`...)
	}
	return append(dst, `"NaN"`...)
}

// appendFloat16 tries how many digits are enough; five always are (2^11 steps between powers of two).
func appendFloat16(dst []byte, h uint16) []byte {
	f := schemas.Float16Value(h)
	if special := f - f; special != 0 {
		return appendSpecial(dst, f)
	}
	var buf [32]byte
	for p := 1; ; p++ {
		b := strconv.AppendFloat(buf[:0], f, 'g', p, 64)
		if g, err := strconv.ParseFloat(text(b), 64); p == 6 || err == nil && schemas.Float16Bits(g) == h {
			return appendFloat(dst, g, 64)
		}
	}
}

const hexDigits = "0123456789abcdef"

// AppendString appends UTF-8 as a JSON string.
func AppendString[T string | []byte](dst []byte, v T) []byte {
	dst = append(dst, '"')
	from := 0
	for i := 0; i < len(v); {
		c := v[i]
		if c >= ' ' && c != '"' && c != '\\' && c < utf8.RuneSelf {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			if r, n := utf8.DecodeRuneInString(string(v[i:min(len(v), i+4)])); r != utf8.RuneError || n > 1 {
				i += n
				continue
			}
		}
		dst = append(dst, v[from:i]...)
		switch {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c == '\n':
			dst = append(dst, '\\', 'n')
		case c == '\t':
			dst = append(dst, '\\', 't')
		case c == '\r':
			dst = append(dst, '\\', 'r')
		case c >= utf8.RuneSelf:
			dst = append(dst, "\ufffd"...) // no column holds such text; an error message might
		default:
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		}
		i++
		from = i
	}
	dst = append(dst, v[from:]...)
	return append(dst, '"')
}
