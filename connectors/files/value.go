package files

import (
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/apache/arrow/go/v15/arrow/float16"

	"github.com/leatstream/leat/schemas"
)

var timeLayouts = []string{time.RFC3339Nano, "2006-01-02 15:04:05.999999999", "2006-01-02T15:04:05.999999999", "2006-01-02"}

// parseTime reads RFC 3339, or the same without a zone (UTC) or without a time, of the years 1677 to 2262 that nanoseconds
// since 1970 reach.
func parseTime(s string) (int64, bool) {
	if len(s) < 10 || s[4] != '-' {
		return 0, false
	}
	for _, l := range timeLayouts {
		if t, err := time.Parse(l, s); err == nil {
			n := t.UnixNano()
			return n, time.Unix(0, n).Equal(t)
		}
	}
	return 0, false
}

// appendText adds one element that stands as text. It does not count a row.
func appendText(c *schemas.Column, s string) error {
	switch t := c.Field().Type; t {
	case schemas.Bool:
		switch s {
		case "true", "True", "TRUE", "1":
			c.AppendBool(true)
		case "false", "False", "FALSE", "0":
			c.AppendBool(false)
		default:
			return wrong(s, t)
		}
	case schemas.String:
		if !utf8.ValidString(s) {
			return errors.New("is not UTF-8")
		}
		c.AppendString(s)
	case schemas.Binary:
		v, err := base64.StdEncoding.DecodeString(s)
		if err != nil {
			return errors.New("is not base64, which binary columns are written in")
		}
		c.AppendText(v)
	case schemas.Timestamp:
		v, ok := parseTime(s)
		if !ok {
			var err error
			if v, err = strconv.ParseInt(s, 10, 64); err != nil {
				return fmt.Errorf("%.40q is not a time as in RFC 3339, nor nanoseconds since 1970", s)
			}
		}
		schemas.Append(c, v)
	default:
		return appendNumber(c, s)
	}
	return nil
}

// appendNumber adds one element to an integer or float column.
func appendNumber(c *schemas.Column, s string) error {
	t := c.Field().Type
	switch {
	case t.Float():
		bits := 8 * max(t.Size(), 4)
		v, err := strconv.ParseFloat(s, bits)
		if err != nil {
			return numberError(s, t, err)
		}
		switch t {
		case schemas.Float16:
			h := float16.New(float32(v))
			if h.Uint16()&0x7fff == 0x7c00 && !math.IsInf(v, 0) {
				return fmt.Errorf("%.40q is out of the range of %s", s, t)
			}
			schemas.Append(c, h.Uint16())
		case schemas.Float32:
			schemas.Append(c, float32(v))
		default:
			schemas.Append(c, v)
		}
	case t >= schemas.Uint8:
		v, err := strconv.ParseUint(s, 10, 8*t.Size())
		if err != nil {
			return numberError(s, t, err)
		}
		switch t {
		case schemas.Uint8:
			schemas.Append(c, uint8(v))
		case schemas.Uint16:
			schemas.Append(c, uint16(v))
		case schemas.Uint32:
			schemas.Append(c, uint32(v))
		default:
			schemas.Append(c, v)
		}
	default:
		v, err := strconv.ParseInt(s, 10, 8*t.Size())
		if err != nil {
			return numberError(s, t, err)
		}
		switch t {
		case schemas.Int8:
			schemas.Append(c, int8(v))
		case schemas.Int16:
			schemas.Append(c, int16(v))
		case schemas.Int32:
			schemas.Append(c, int32(v))
		default:
			schemas.Append(c, v)
		}
	}
	return nil
}

func numberError(s string, t schemas.DType, err error) error {
	if errors.Is(err, strconv.ErrRange) {
		return fmt.Errorf("%.40q is out of the range of %s", s, t)
	}
	return wrong(s, t)
}

func wrong(s string, t schemas.DType) error { return fmt.Errorf("%.40q is no %s", s, t) }
