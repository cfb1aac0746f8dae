package document

import (
	"bytes"
	"encoding/json"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/leatstream/leat/schemas"
)

// Canonical returns v's JSON in the canonical form of RFC 8785: keys sorted by their UTF-16 code units, numbers as
// ECMAScript writes them, no spaces, no escape that is not needed. v is anything encoding/json takes. An integer past
// 2^53 whose digits are not those of a float64 is Invalid: two different values would get one form.
func Canonical(v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, schemas.Errorf(schemas.Invalid, "document.Canonical", "%w", err)
	}
	return CanonicalJSON(b)
}

// CanonicalJSON is Canonical of a JSON text. A key twice in one object is Invalid.
func CanonicalJSON(b []byte) ([]byte, error) {
	const op = "document.CanonicalJSON"
	if !utf8.Valid(b) {
		return nil, schemas.Errorf(schemas.Invalid, op, "not UTF-8")
	}
	p := jsonParser{d: json.NewDecoder(bytes.NewReader(b)), text: b}
	p.d.UseNumber()
	p.depthLimit, p.nodeLimit = 1000, math.MaxInt
	v, err := p.value(0)
	if err != nil {
		return nil, schemas.Errorf(schemas.Invalid, op, "%w", err)
	}
	if _, err := p.d.Token(); err != io.EOF {
		return nil, schemas.Errorf(schemas.Invalid, op, "bytes after the value")
	}
	if len(p.faults) > 0 {
		return nil, p.faults.Err(op)
	}
	return appendCanonical(make([]byte, 0, len(b)), v)
}

func appendCanonical(b []byte, v *Value) ([]byte, error) {
	var err error
	switch v.Kind {
	case Null:
		return append(b, "null"...), nil
	case Bool:
		return append(b, v.Text...), nil
	case Number:
		return appendNumber(b, v.Text)
	case Text:
		return appendString(b, v.Text), nil
	case List:
		b = append(b, '[')
		for i, e := range v.Items {
			if i > 0 {
				b = append(b, ',')
			}
			if b, err = appendCanonical(b, e); err != nil {
				return nil, err
			}
		}
		return append(b, ']'), nil
	}
	keys := slices.Clone(v.Keys)
	slices.SortFunc(keys, func(x, y Key) int {
		return slices.Compare(utf16.Encode([]rune(x.Name)), utf16.Encode([]rune(y.Name)))
	})
	b = append(b, '{')
	for i, k := range keys {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(appendString(b, k.Name), ':')
		if b, err = appendCanonical(b, k.Value); err != nil {
			return nil, err
		}
	}
	return append(b, '}'), nil
}

// appendNumber writes a double as ECMAScript's Number.toString does (RFC 8785, 3.2.2.3).
func appendNumber(b []byte, text string) ([]byte, error) {
	f, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return nil, schemas.Errorf(schemas.Invalid, "document.Canonical", "number %s is out of the range of a float64", clip(text))
	}
	// Past 2^53 an integer passes only with the digits that the float64 itself is written with, so that the canonical
	// form of 66e16 passes and no two integers share a form.
	if !strings.ContainsAny(text, ".eE") && math.Abs(f) >= 1<<53 && text != strconv.FormatFloat(f, 'f', -1, 64) {
		return nil, schemas.Errorf(schemas.Invalid, "document.Canonical", "integer %s: a float64 does not hold its digits (it holds every whole number below 2^53)", clip(text))
	}
	abs := math.Abs(f)
	if abs == 0 {
		return append(b, '0'), nil
	}
	if abs >= 1e-6 && abs < 1e21 {
		return strconv.AppendFloat(b, f, 'f', -1, 64), nil
	}
	s := strconv.FormatFloat(f, 'e', -1, 64)
	mant, exp, _ := strings.Cut(s, "e")
	sign, digits := exp[:1], strings.TrimLeft(exp[1:], "0") // Go pads the exponent to two digits
	return append(b, mant+"e"+sign+digits...), nil
}

func appendString(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c == '\b':
			b = append(b, `\b`...)
		case c == '\t':
			b = append(b, `\t`...)
		case c == '\n':
			b = append(b, `\n`...)
		case c == '\f':
			b = append(b, `\f`...)
		case c == '\r':
			b = append(b, `\r`...)
		case c < 0x20:
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		default:
			b = append(b, c)
		}
	}
	return append(b, '"')
}

func clip(s string) string {
	if len(s) > 80 {
		return s[:77] + "..."
	}
	return s
}
