package files

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"unicode/utf8"
	"unsafe"

	"github.com/leatstream/leat/schemas"
)

// jsonRows reads objects, one a row.
type jsonRows struct {
	read   func(r *row) error
	index  map[string]int // column by name
	filled []bool         // of the row at hand
	schema *schemas.Schema
}

func (j *jsonRows) next(r *row) error { return j.read(r) }

// newNDJSON reads one object a line; empty lines are passed over.
func newNDJSON(in *budget) *jsonRows {
	br := bufio.NewReaderSize(in, 256<<10)
	var line int64
	var long []byte
	return &jsonRows{read: func(r *row) error {
		for {
			b, err := br.ReadSlice('\n')
			if errors.Is(err, bufio.ErrBufferFull) {
				long = append(long[:0], b...)
				for errors.Is(err, bufio.ErrBufferFull) {
					b, err = br.ReadSlice('\n')
					long = append(long, b...)
				}
				b = long
			}
			in.refill()
			if err != nil && err != io.EOF {
				return err
			}
			if len(b) > in.limit {
				return longRow(in.limit)
			}
			if len(b) > 0 {
				line++
			}
			if b = bytes.TrimSpace(b); len(b) > 0 {
				r.line, r.raw = line, b
				return nil
			}
			if err == io.EOF {
				return io.EOF
			}
		}
	}}
}

var rowsHead = regexp.MustCompile(`^\s*\{\s*"rows"\s*:\s*\[`)

// newJSON reads an array of objects, {"rows":[...]}, or objects one after the other.
func newJSON(path string, in *budget) (*jsonRows, error) {
	br := bufio.NewReaderSize(in, 64<<10)
	head, err := br.Peek(1024)
	if err != nil && err != io.EOF {
		return nil, schemas.AsError("files.Open", err)
	}
	bad := func(err error) error {
		if schemas.KindOf(err) == schemas.Invalid {
			return err
		}
		return schemas.Errorf(schemas.Invalid, "files.Reader", "%s: not JSON: %w", path, err)
	}
	var src io.Reader = br
	array, wrapped := false, rowsHead.Find(head)
	if wrapped != nil {
		_, _ = br.Discard(len(wrapped))
		src = io.MultiReader(strings.NewReader("["), br)
		array = true
	} else {
		array = bytes.HasPrefix(bytes.TrimSpace(head), []byte("["))
	}
	dec := json.NewDecoder(src)
	if array {
		if _, err := dec.Token(); err != nil {
			return nil, bad(err)
		}
	}
	end := func() error {
		_, err := dec.Token()
		if !array && err == io.EOF {
			return io.EOF
		}
		if err != nil {
			return bad(err)
		}
		rest, err := io.ReadAll(io.LimitReader(io.MultiReader(dec.Buffered(), br), 1024))
		if err != nil {
			return bad(err)
		}
		if want := map[bool]string{true: "}", false: ""}[wrapped != nil]; string(bytes.TrimSpace(rest)) != want {
			return bad(fmt.Errorf("%.40q follows the rows", bytes.TrimSpace(rest)))
		}
		return io.EOF
	}
	var n int64
	var over error // sticks: the decoder does not remember its end
	return &jsonRows{read: func(r *row) error {
		if over != nil {
			return over
		}
		if !dec.More() {
			over = end()
			return over
		}
		var raw json.RawMessage
		if err := dec.Decode(&raw); err != nil {
			return bad(err)
		}
		in.refill()
		if len(raw) > in.limit { // the decoder reads ahead by as much as its longest row
			return longRow(in.limit)
		}
		n++
		r.line, r.raw = n, raw
		return nil
	}}, nil
}

func (j *jsonRows) bind(s *schemas.Schema) {
	j.schema, j.index, j.filled = s, make(map[string]int, s.Len()), make([]bool, s.Len())
	for i := range s.Len() {
		j.index[s.Field(i).Name] = i
	}
}

// look counts the values of a row.
func (j *jsonRows) look(r *row, g *guess) error {
	return object(r.raw, func(name, value []byte) error {
		e := g.column(string(name))
		switch value[0] {
		case '"':
			s, err := text(value)
			if err != nil {
				return err
			}
			switch t := string(s); t {
			case "NaN", "Infinity", "-Infinity":
				e.floats++
			default:
				if _, ok := parseTime(t); ok {
					e.times++
				} else {
					e.texts++
				}
			}
		case '{':
			e.nested++
		case '[':
			e.arrays++
			var fs []float64
			if json.Unmarshal(value, &fs) != nil {
				e.nested++
			} else if e.lists++; e.lists == 1 {
				e.width = len(fs)
			} else if e.width != len(fs) {
				e.width = -1
			}
		case 't', 'f':
			e.bools++
		case 'n':
		default:
			if bytes.ContainsAny(value, ".eE") {
				e.floats++
			} else {
				e.ints++
			}
		}
		return nil
	})
}

func (j *jsonRows) append(b *schemas.Batch, r *row) *schemas.Error {
	clear(j.filled)
	var at string
	err := object(r.raw, func(name, value []byte) error {
		i, ok := j.index[string(name)]
		if !ok {
			return nil
		}
		at = j.schema.Field(i).Name
		if j.filled[i] {
			return errors.New("named twice")
		}
		j.filled[i] = true
		c := b.Column(i)
		if value[0] == 'n' {
			c.AppendNull()
			return nil
		}
		n, err := appendJSON(c, value, 0)
		if err != nil {
			return err
		}
		if n != c.Width() {
			return fmt.Errorf("%d elements, want %d", n, c.Width())
		}
		c.EndRow()
		return nil
	})
	if err != nil {
		return blame(at, err)
	}
	for i, f := range j.filled {
		if !f {
			b.Column(i).AppendNull()
		}
	}
	return nil
}

// appendJSON adds the elements of a valid JSON value and returns their number.
func appendJSON(c *schemas.Column, v []byte, depth int) (int, error) {
	t := c.Field().Type
	switch v[0] {
	case '[':
		if !c.Field().Tensor() || depth >= len(c.Field().Shape) && depth > 0 {
			return 0, fmt.Errorf("a list where one %s is wanted", t)
		}
		n := 0
		err := elements(v, func(e []byte) error {
			k, err := appendJSON(c, e, depth+1)
			if n += k; err == nil && n > c.Width() {
				err = fmt.Errorf("more than %d elements", c.Width())
			}
			return err
		})
		return n, err
	case '"':
		s, err := text(v)
		if err != nil {
			return 0, err
		}
		switch {
		case t.Float():
			if s := string(s); s != "NaN" && s != "Infinity" && s != "-Infinity" {
				return 0, wrong(s, t)
			}
		case t == schemas.Bool || t.Integer() && t != schemas.Int64 && t != schemas.Uint64:
			return 0, fmt.Errorf("a string where a %s is wanted", t)
		case t == schemas.String:
			c.AppendText(s)
			return 1, nil
		}
		return 1, appendText(c, view(s))
	case 't', 'f':
		if t != schemas.Bool {
			return 0, fmt.Errorf("%s where a %s is wanted", v, t)
		}
		c.AppendBool(v[0] == 't')
		return 1, nil
	case '{', 'n':
		return 0, fmt.Errorf("%.20s where a %s is wanted", v, t)
	}
	if t == schemas.Bool || t.Variable() {
		return 0, fmt.Errorf("a number where a %s is wanted", t)
	}
	return 1, appendText(c, view(v))
}

// view sees bytes as a string for a call that keeps nothing of it: a copy of each number would be most of a row's cost.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// object calls fn for each member of a JSON object. It checks that raw is one valid object.
func object(raw []byte, fn func(name, value []byte) error) error {
	if !json.Valid(raw) {
		return schemas.Errorf(schemas.Invalid, "files.Reader", "not a JSON object: %.60q", raw)
	}
	s := scanner{raw, 0}
	if s.space(); s.b[s.i] != '{' {
		return schemas.Errorf(schemas.Invalid, "files.Reader", "a row is a JSON object, not %.40q", raw)
	}
	s.i++
	for s.space(); s.b[s.i] != '}'; s.space() {
		if s.b[s.i] == ',' {
			s.i++
			s.space()
		}
		name, err := text(s.value())
		if err != nil {
			return err
		}
		s.space()
		s.i++ // ':'
		s.space()
		if err := fn(name, s.value()); err != nil {
			return err
		}
	}
	return nil
}

// elements calls fn for each element of a valid JSON array.
func elements(v []byte, fn func(e []byte) error) error {
	s := scanner{v, 1}
	for s.space(); s.b[s.i] != ']'; s.space() {
		if s.b[s.i] == ',' {
			s.i++
			s.space()
		}
		if err := fn(s.value()); err != nil {
			return err
		}
	}
	return nil
}

// text returns the content of a JSON string.
func text(v []byte) ([]byte, error) {
	s := v[1 : len(v)-1]
	if !utf8.Valid(s) {
		return nil, errors.New("is not UTF-8")
	}
	if bytes.IndexByte(s, '\\') < 0 {
		return s, nil
	}
	var out string
	err := json.Unmarshal(v, &out)
	return []byte(out), err
}

// scanner walks JSON that is known to be valid.
type scanner struct {
	b []byte
	i int
}

func (s *scanner) space() {
	for s.b[s.i] == ' ' || s.b[s.i] == '\t' || s.b[s.i] == '\n' || s.b[s.i] == '\r' {
		s.i++
	}
}

// value returns the value that starts here and goes past it.
func (s *scanner) value() []byte {
	from, depth := s.i, 0
	for ; s.i < len(s.b); s.i++ {
		switch s.b[s.i] {
		case '"':
			for s.i++; s.b[s.i] != '"'; s.i++ {
				if s.b[s.i] == '\\' {
					s.i++
				}
			}
			if depth == 0 && s.b[from] == '"' {
				s.i++
				return s.b[from:s.i]
			}
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 {
				return s.b[from:s.i] // a bare word ends before it
			}
			if depth--; depth == 0 {
				s.i++
				return s.b[from:s.i]
			}
		case ',', ' ', '\t', '\n', '\r':
			if depth == 0 {
				return s.b[from:s.i]
			}
		}
	}
	return s.b[from:s.i]
}
