package schemas

import (
	"encoding/json"
	"fmt"

	"github.com/apache/arrow/go/v15/arrow"
)

// DType is the type of one element of a column.
type DType uint8

// The element types. The zero DType is not valid.
const (
	Bool DType = iota + 1
	Int8
	Int16
	Int32
	Int64
	Uint8
	Uint16
	Uint32
	Uint64
	Float16
	Float32
	Float64
	String    // UTF-8
	Binary    // any bytes
	Timestamp // nanoseconds since the Unix epoch, UTC
)

var dtypes = [...]struct {
	name  string
	size  int // bytes of one element in a Column; 0: variable
	arrow arrow.DataType
}{
	Bool:      {"bool", 1, arrow.FixedWidthTypes.Boolean},
	Int8:      {"int8", 1, arrow.PrimitiveTypes.Int8},
	Int16:     {"int16", 2, arrow.PrimitiveTypes.Int16},
	Int32:     {"int32", 4, arrow.PrimitiveTypes.Int32},
	Int64:     {"int64", 8, arrow.PrimitiveTypes.Int64},
	Uint8:     {"uint8", 1, arrow.PrimitiveTypes.Uint8},
	Uint16:    {"uint16", 2, arrow.PrimitiveTypes.Uint16},
	Uint32:    {"uint32", 4, arrow.PrimitiveTypes.Uint32},
	Uint64:    {"uint64", 8, arrow.PrimitiveTypes.Uint64},
	Float16:   {"float16", 2, arrow.FixedWidthTypes.Float16},
	Float32:   {"float32", 4, arrow.PrimitiveTypes.Float32},
	Float64:   {"float64", 8, arrow.PrimitiveTypes.Float64},
	String:    {"string", 0, arrow.BinaryTypes.String},
	Binary:    {"binary", 0, arrow.BinaryTypes.Binary},
	Timestamp: {"timestamp", 8, &arrow.TimestampType{Unit: arrow.Nanosecond, TimeZone: "UTC"}},
}

// Valid reports whether d is one of the types above.
func (d DType) Valid() bool { return d >= Bool && int(d) < len(dtypes) }

// String returns the type's name as signatures and schemas write it.
func (d DType) String() string {
	if !d.Valid() {
		return fmt.Sprintf("dtype(%d)", uint8(d))
	}
	return dtypes[d].name
}

// Size returns the bytes that one element takes in a Column, 0 for String and Binary.
func (d DType) Size() int { return dtypes[d].size }

// Arrow returns the Arrow type of one element.
func (d DType) Arrow() arrow.DataType { return dtypes[d].arrow }

// Variable reports whether elements differ in size: String and Binary.
func (d DType) Variable() bool { return d == String || d == Binary }

// Integer reports whether d is one of Int8..Uint64.
func (d DType) Integer() bool { return d >= Int8 && d <= Uint64 }

// Float reports whether d is one of Float16, Float32, Float64.
func (d DType) Float() bool { return d >= Float16 && d <= Float64 }

// ParseDType is the inverse of String.
func ParseDType(s string) (DType, error) {
	for i := Bool; int(i) < len(dtypes); i++ {
		if dtypes[i].name == s {
			return i, nil
		}
	}
	return 0, Errorf(Invalid, "schemas.ParseDType", "unknown dtype %q", s)
}

// DTypes returns the names of all element types.
func DTypes() []string {
	var names []string
	for i := Bool; int(i) < len(dtypes); i++ {
		names = append(names, dtypes[i].name)
	}
	return names
}

// MarshalJSON writes the name.
func (d DType) MarshalJSON() ([]byte, error) { return json.Marshal(d.String()) }

// UnmarshalJSON reads the name.
func (d *DType) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	v, err := ParseDType(s)
	*d = v
	return err
}
