package jsonscan

import (
	"bytes"
	"unicode/utf8"

	"github.com/leatstream/leat/schemas"
)

// MaxDepth is how deep objects and arrays may be nested.
const MaxDepth = 32

// Scanner is at one place of a document. It belongs to one goroutine; Reset starts it on another document.
type Scanner struct {
	b       []byte
	p       int
	depth   int
	err     *schemas.Error
	syntax  bool   // err says that the document is no JSON, not that a value is wrong
	scratch []byte // of the last string that had escapes
	binary  []byte // of the last base64
}

// Reset starts a document.
func (s *Scanner) Reset(b []byte) {
	*s = Scanner{b: b, scratch: s.scratch[:0], binary: s.binary[:0]}
}

// Err returns the first failure, nil if there was none.
func (s *Scanner) Err() *schemas.Error { return s.err }

// Syntax reports whether the failure is one of the document itself: nothing after it can be read.
func (s *Scanner) Syntax() bool { return s.syntax }

// Offset is where the scanner is, in bytes.
func (s *Scanner) Offset() int { return s.p }

// Rewind goes back to an offset at the same depth and forgets a failure that was not one of syntax.
func (s *Scanner) Rewind(offset, depth int) {
	s.p, s.depth, s.err = offset, depth, nil
}

// Depth is how many objects and arrays are open.
func (s *Scanner) Depth() int { return s.depth }

// Fail records that a value is wrong and returns false.
func (s *Scanner) Fail(format string, args ...any) bool {
	if s.err == nil {
		s.err = schemas.Errorf(schemas.Invalid, "schemas.JSON", format, args...)
	}
	return false
}

// broken records that the document is no JSON.
func (s *Scanner) broken(want string) bool {
	if s.err == nil {
		s.syntax = true
		if s.p >= len(s.b) {
			return s.Fail("JSON ends at byte %d: want %s", len(s.b), want)
		}
		end := min(len(s.b), s.p+12)
		return s.Fail("JSON at byte %d: want %s, got %q", s.p, want, s.b[s.p:end])
	}
	return false
}

func (s *Scanner) space() {
	for s.p < len(s.b) {
		switch s.b[s.p] {
		case ' ', '\n', '\t', '\r':
			s.p++
		default:
			return
		}
	}
}

// Peek returns the byte that the next token starts with, 0 at the end.
func (s *Scanner) Peek() byte {
	if s.p < len(s.b) && s.b[s.p] > ' ' {
		return s.b[s.p]
	}
	s.space()
	if s.p >= len(s.b) {
		return 0
	}
	return s.b[s.p]
}

// Open takes '{' or '['.
func (s *Scanner) Open(c byte) bool {
	if s.err != nil {
		return false
	}
	if s.Peek() != c {
		what := "an object"
		if c == '[' {
			what = "an array"
		}
		if s.value() {
			return s.Fail("want %s, got %s", what, s.kind())
		}
		return s.broken(what)
	}
	if s.depth++; s.depth > MaxDepth {
		s.syntax = true
		return s.Fail("JSON at byte %d is nested more than %d deep", s.p, MaxDepth)
	}
	s.p++
	return true
}

// More is called before each member or element, with the number of those read: it takes the comma between them, and
// returns false at the end, whose closing byte it takes, or on a failure.
func (s *Scanner) More(end byte, n int) bool {
	if s.err != nil {
		return false
	}
	c := s.Peek()
	if c == end {
		s.p++
		s.depth--
		return false
	}
	if n == 0 {
		return true
	}
	if c != ',' {
		return s.broken("',' or '" + string(rune(end)) + "'")
	}
	s.p++
	if s.Peek() == end {
		return s.broken("a value after ','")
	}
	return true
}

// KeyIs takes a key and its colon if it is the one given with its quotes and written without escapes.
func (s *Scanner) KeyIs(quoted []byte) bool {
	s.Peek()
	if !bytes.HasPrefix(s.b[s.p:], quoted) {
		return false
	}
	p := s.p
	s.p += len(quoted)
	if s.Peek() != ':' {
		s.p = p
		return false
	}
	s.p++
	return true
}

// Key takes a key and its colon. The bytes are valid until the next string is read.
func (s *Scanner) Key() ([]byte, bool) {
	if s.err == nil && s.Peek() != '"' {
		return nil, s.broken("a name in quotes")
	}
	k, ok := s.String()
	if !ok {
		return nil, false
	}
	if s.Peek() != ':' {
		return nil, s.broken("':'")
	}
	s.p++
	return k, true
}

// Null takes null, if it is there.
func (s *Scanner) Null() bool {
	if s.Peek() == 'n' && s.err == nil && s.literal("null") {
		s.p += 4
		return true
	}
	return false
}

// literal reports whether the word is next, as a whole.
func (s *Scanner) literal(w string) bool {
	end := s.p + len(w)
	return end <= len(s.b) && string(s.b[s.p:end]) == w && (end == len(s.b) || delimiter(s.b[end]))
}

func delimiter(c byte) bool {
	return c == ',' || c == '}' || c == ']' || c == ':' || c <= ' '
}

// Bool takes true or false.
func (s *Scanner) Bool() (v, ok bool) {
	if s.err != nil {
		return false, false
	}
	switch c := s.Peek(); {
	case c == 't' && s.literal("true"):
		s.p += 4
		return true, true
	case c == 'f' && s.literal("false"):
		s.p += 5
		return false, true
	}
	return false, s.want("true or false")
}

// want fails because the next value is of another kind, or no value at all.
func (s *Scanner) want(what string) bool {
	if s.value() {
		return s.Fail("want %s, got %s", what, s.kind())
	}
	return s.broken(what)
}

// value reports whether a JSON value seems to start here.
func (s *Scanner) value() bool {
	switch c := s.Peek(); c {
	case '"', '{', '[', '-':
		return true
	case 't':
		return s.literal("true")
	case 'f':
		return s.literal("false")
	case 'n':
		return s.literal("null")
	default:
		return c >= '0' && c <= '9'
	}
}

func (s *Scanner) kind() string {
	switch s.Peek() {
	case '"':
		return "a string"
	case '{':
		return "an object"
	case '[':
		return "an array"
	case 't', 'f':
		return "a boolean"
	case 'n':
		return "null"
	}
	return "a number"
}

// String takes a string and returns its value: bytes of the document, or of the scanner if there were escapes, valid
// until the next string is read.
func (s *Scanner) String() ([]byte, bool) {
	if s.err != nil {
		return nil, false
	}
	if s.Peek() != '"' {
		return nil, s.want("a string")
	}
	i := s.p + 1
	ascii := byte(0)
	for i < len(s.b) {
		c := s.b[i]
		if c == '"' {
			v := s.b[s.p+1 : i]
			if ascii >= 0x80 && !utf8.Valid(v) {
				return nil, s.notText()
			}
			s.p = i + 1
			return v, true
		}
		if c == '\\' {
			return s.escaped(i)
		}
		if c < ' ' {
			s.p = i
			return nil, s.broken("no control character in a string")
		}
		ascii |= c
		i++
	}
	s.p = len(s.b)
	return nil, s.broken("the end of a string")
}

func (s *Scanner) notText() bool {
	s.syntax = true
	return s.Fail("JSON at byte %d: the string is not UTF-8", s.p)
}

// escaped goes on with a string whose first escape is at i.
func (s *Scanner) escaped(i int) ([]byte, bool) {
	out := append(s.scratch[:0], s.b[s.p+1:i]...)
	for i < len(s.b) {
		c := s.b[i]
		switch {
		case c == '"':
			s.scratch = out
			if !utf8.Valid(out) {
				return nil, s.notText()
			}
			s.p = i + 1
			return out, true
		case c < ' ':
			s.p = i
			return nil, s.broken("no control character in a string")
		case c != '\\':
			out = append(out, c)
			i++
		default:
			var n int
			if out, n = unescape(out, s.b[i:]); n == 0 {
				s.p = i
				return nil, s.broken("a JSON escape of a whole character")
			}
			i += n
		}
	}
	s.p = len(s.b)
	return nil, s.broken("the end of a string")
}

// unescape appends what the escape at the start of b stands for and returns its length, 0 if it is none. Half of a
// surrogate pair is none: it has no UTF-8 form.
func unescape(out, b []byte) ([]byte, int) {
	if len(b) < 2 {
		return out, 0
	}
	switch b[1] {
	case '"', '\\', '/':
		return append(out, b[1]), 2
	case 'b':
		return append(out, '\b'), 2
	case 'f':
		return append(out, '\f'), 2
	case 'n':
		return append(out, '\n'), 2
	case 'r':
		return append(out, '\r'), 2
	case 't':
		return append(out, '\t'), 2
	case 'u':
		r, ok := hex4(b[2:])
		switch {
		case !ok || r >= 0xdc00 && r < 0xe000:
			return out, 0
		case r < 0xd800 || r >= 0xe000:
			return utf8.AppendRune(out, r), 6
		}
		if len(b) < 8 || b[6] != '\\' || b[7] != 'u' {
			return out, 0
		}
		low, ok := hex4(b[8:])
		if !ok || low < 0xdc00 || low >= 0xe000 {
			return out, 0
		}
		return utf8.AppendRune(out, (r-0xd800)<<10+(low-0xdc00)+0x10000), 12
	}
	return out, 0
}

func hex4(b []byte) (rune, bool) {
	if len(b) < 4 {
		return 0, false
	}
	var r rune
	for _, c := range b[:4] {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}

// Skip takes any value and checks its syntax.
func (s *Scanner) Skip() bool {
	if s.err != nil {
		return false
	}
	switch c := s.Peek(); c {
	case '{':
		if !s.Open('{') {
			return false
		}
		for n := 0; s.More('}', n); n++ {
			if _, ok := s.Key(); !ok || !s.Skip() {
				return false
			}
		}
	case '[':
		if !s.Open('[') {
			return false
		}
		for n := 0; s.More(']', n); n++ {
			if !s.Skip() {
				return false
			}
		}
	case '"':
		_, ok := s.String()
		return ok
	case 't', 'f':
		_, ok := s.Bool()
		return ok
	case 'n':
		return s.Null() || s.broken("a value")
	default:
		_, ok := s.number()
		return ok
	}
	return s.err == nil
}

// End fails unless nothing but white space is left.
func (s *Scanner) End() bool {
	if s.err != nil {
		return false
	}
	if s.Peek() != 0 || s.p < len(s.b) {
		return s.broken("the end of the document")
	}
	return true
}
