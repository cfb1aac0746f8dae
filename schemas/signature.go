package schemas

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"strconv"
	"strings"
)

// Limits of a schema: bounds on what a hostile signature or a forged Arrow schema can make us allocate.
const (
	MaxColumns     = 4096
	MaxColumnName  = 256
	MaxRowElements = 1 << 24 // product of a tensor's per-row shape
)

// Field is one column: a scalar a row, or a tensor of fixed per-row shape.
type Field struct {
	Name     string `json:"name" yaml:"name"`
	Type     DType  `json:"type" yaml:"type"`
	Shape    []int  `json:"shape,omitempty" yaml:"shape,omitempty"` // per row, without the batch dimension; nil: a scalar
	Nullable bool   `json:"nullable,omitempty" yaml:"nullable,omitempty"`
	// Features names the elements of a packed tensor, in order: len(Features) = Width. With it, rows may name the
	// elements one by one, and files with columns of these names feed the tensor. Not part of the schema's identity.
	Features []string `json:"features,omitempty" yaml:"features,omitempty"`
}

// Width returns the elements in a row: 1 for a scalar, else the product of Shape.
func (f *Field) Width() int {
	w := 1
	for _, d := range f.Shape {
		w *= d
	}
	return w
}

// Tensor reports whether the field travels as a FixedSizeList.
func (f *Field) Tensor() bool { return f.Shape != nil }

// SchemaID is the first 16 bytes of SHA-256 over the canonical JSON of the columns (SEMANTICS 2).
type SchemaID [16]byte

// String returns 32 hex digits.
func (id SchemaID) String() string { return hex.EncodeToString(id[:]) }

// ParseSchemaID is the inverse of String.
func ParseSchemaID(s string) (id SchemaID, err error) {
	if len(s) != 32 {
		return id, Errorf(Invalid, "schemas.ParseSchemaID", "schema id %q: want 32 hex digits", clip(s))
	}
	if _, err := hex.Decode(id[:], []byte(s)); err != nil {
		return id, Errorf(Invalid, "schemas.ParseSchemaID", "schema id %q: want 32 hex digits", clip(s))
	}
	return id, nil
}

// Schema is an ordered set of uniquely named columns. It is immutable and safe for concurrent use.
type Schema struct {
	fields []Field
	id     SchemaID
	index  map[string]int
	canon  []byte

	derived *derived
}

// NewSchema checks the fields (names unique, UTF-8 and short; shapes positive and bounded) and computes the id.
func NewSchema(fields []Field) (*Schema, error) {
	const op = "schemas.NewSchema"
	if len(fields) > MaxColumns {
		return nil, Errorf(Invalid, op, "%d columns: at most %d", len(fields), MaxColumns)
	}
	s := &Schema{fields: make([]Field, len(fields)), index: make(map[string]int, len(fields)), derived: new(derived)}
	for i, f := range fields {
		if f.Name == "" || len(f.Name) > MaxColumnName || !validText(f.Name) {
			return nil, Errorf(Invalid, op, "column %d: name %q: want 1 to %d bytes of UTF-8 without control characters", i, clip(f.Name), MaxColumnName)
		}
		if _, dup := s.index[f.Name]; dup {
			return nil, FieldErrorf(Invalid, op, f.Name, "two columns of this name")
		}
		if !f.Type.Valid() {
			return nil, FieldErrorf(Invalid, op, f.Name, "no valid dtype")
		}
		n := 1
		for _, d := range f.Shape {
			if d < 1 || d > MaxRowElements || n > MaxRowElements/d {
				return nil, FieldErrorf(Invalid, op, f.Name, "shape %v: want positive dimensions, at most %d elements a row", f.Shape, MaxRowElements)
			}
			n *= d
		}
		if len(f.Features) > 0 && len(f.Features) != n {
			return nil, FieldErrorf(Invalid, op, f.Name, "%d feature names for %d elements", len(f.Features), n)
		}
		// Copies, since a Schema is immutable; and no empty slices: a shape of no dimensions is a scalar.
		f.Shape = append([]int(nil), f.Shape...)
		f.Features = append([]string(nil), f.Features...)
		s.fields[i] = f
		s.index[f.Name] = i
	}
	if err := checkFeatures(s); err != nil {
		return nil, err
	}
	s.canon = canonicalFields(s.fields)
	sum := sha256.Sum256(s.canon)
	copy(s.id[:], sum[:16])
	return s, nil
}

// checkFeatures asks that a name means one thing: a column, or one element of one tensor. Rows and files may use either.
func checkFeatures(s *Schema) error {
	const op = "schemas.NewSchema"
	owner := map[string]string{}
	for i := range s.fields {
		f := &s.fields[i]
		for _, n := range f.Features {
			if n == "" || len(n) > MaxColumnName || !validText(n) {
				return FieldErrorf(Invalid, op, f.Name, "feature name %q: want 1 to %d bytes of UTF-8 without control characters", clip(n), MaxColumnName)
			}
			if _, is := s.index[n]; is {
				return FieldErrorf(Invalid, op, f.Name, "feature %q has the name of a column", n)
			}
			if o, dup := owner[n]; dup {
				return FieldErrorf(Invalid, op, f.Name, "feature %q is named twice (in %s before)", n, o)
			}
			owner[n] = f.Name
		}
	}
	return nil
}

// MustSchema is NewSchema for schemas written in code.
func MustSchema(fields ...Field) *Schema {
	s, err := NewSchema(fields)
	if err != nil {
		panic(err)
	}
	return s
}

// ID returns the identity that travels in Leat-Schema.
func (s *Schema) ID() SchemaID { return s.id }

// Len returns the number of columns.
func (s *Schema) Len() int { return len(s.fields) }

// Field returns column i; the caller does not write to it.
func (s *Schema) Field(i int) *Field { return &s.fields[i] }

// Fields returns the columns; the caller does not write to them.
func (s *Schema) Fields() []Field { return s.fields }

// Index returns the column of that name, -1 if there is none.
func (s *Schema) Index(name string) int {
	if i, ok := s.index[name]; ok {
		return i
	}
	return -1
}

// Canonical returns the RFC 8785 JSON that the id is a digest of: what the catalogue stores.
func (s *Schema) Canonical() []byte { return s.canon }

// MarshalJSON writes the fields, with feature names.
func (s *Schema) MarshalJSON() ([]byte, error) { return json.Marshal(s.fields) }

// UnmarshalJSON reads and checks fields.
func (s *Schema) UnmarshalJSON(b []byte) error {
	var fs []Field
	if err := json.Unmarshal(b, &fs); err != nil {
		return err
	}
	n, err := NewSchema(fs)
	if err != nil {
		return err
	}
	*s = *n
	return nil
}

// String lists the columns, for error lines and tables: "dep_delay float32, features float32[13]".
func (s *Schema) String() string {
	var b strings.Builder
	for i := range s.fields {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(s.fields[i].String())
	}
	return b.String()
}

// String writes "name type[shape]?"; the question mark means nullable.
func (f *Field) String() string {
	t := f.Name + " " + f.Type.String()
	if f.Shape != nil {
		d := make([]string, len(f.Shape))
		for i, n := range f.Shape {
			d[i] = strconv.Itoa(n)
		}
		t += "[" + strings.Join(d, ",") + "]"
	}
	if f.Nullable {
		t += "?"
	}
	return t
}

// canonicalFields writes [{name,nullable,shape,type}] as RFC 8785 asks: keys sorted, no spaces, strings escaped no
// more than needed. Values are only strings, booleans and small integers, so nothing else of the RFC comes in.
func canonicalFields(fs []Field) []byte {
	b := []byte{'['}
	for i := range fs {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, `{"name":`...)
		b = appendCanonicalString(b, fs[i].Name)
		b = append(b, `,"nullable":`...)
		b = strconv.AppendBool(b, fs[i].Nullable)
		b = append(b, `,"shape":[`...)
		for j, d := range fs[i].Shape {
			if j > 0 {
				b = append(b, ',')
			}
			b = strconv.AppendInt(b, int64(d), 10)
		}
		b = append(b, `],"type":"`...)
		b = append(b, fs[i].Type.String()...)
		b = append(b, `"}`...)
	}
	return append(b, ']')
}

// appendCanonicalString: names hold no control characters (validText), so quote and backslash alone need an escape.
func appendCanonicalString(b []byte, s string) []byte {
	b = append(b, '"')
	for i := 0; i < len(s); i++ {
		if s[i] == '"' || s[i] == '\\' {
			b = append(b, '\\')
		}
		b = append(b, s[i])
	}
	return append(b, '"')
}

// Signature says what a model takes and gives.
type Signature struct {
	Inputs  *Schema `json:"inputs"`
	Outputs *Schema `json:"outputs"`
}

// validText reports whether s is UTF-8 without control characters and replacement characters.
func validText(s string) bool {
	for _, r := range s {
		if r < 0x20 || r == 0x7f || r == 0xfffd {
			return false
		}
	}
	return true
}
