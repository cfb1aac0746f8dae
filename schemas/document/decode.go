package document

import (
	"encoding"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// Decode fills dst, a pointer to a struct, from a parsed document, and returns every fault it finds; what is right is
// filled in all the same, so that a check of the contents can add its own. Fields are named by their yaml tags; those of
// an embedded struct stand beside its own. It knows structs, pointers, slices, maps with text keys, text, numbers,
// booleans, time.Duration and whatever is an encoding.TextUnmarshaler: if that is a struct with keys, it may be written as
// a map too. It panics on a field of any other type: a mistake of the programmer.
func Decode(v *Value, dst any) Faults {
	d := decoder{}
	d.value(v, reflect.ValueOf(dst).Elem(), "")
	return d.faults
}

type decoder struct{ faults Faults }

func (d *decoder) fault(line int, path, format string, args ...any) {
	if len(d.faults) < maxFaults {
		d.faults = append(d.faults, Fault{Path: path, Line: line, Text: fmt.Sprintf(format, args...)})
	}
}

func (d *decoder) want(v *Value, path, what string) {
	got := v.Kind.String()
	switch v.Kind {
	case Bool, Number:
		got += " (" + clip(v.Text) + ")"
	case Text:
		got += fmt.Sprintf(" (%q)", clip(v.Text))
	}
	d.fault(v.Line, path, "want %s, got %s", what, got)
}

func (d *decoder) value(v *Value, dst reflect.Value, path string) {
	if v.Kind == Null { // a key without a value is a key that is not there
		return
	}
	if dst.Kind() == reflect.Pointer {
		n := reflect.New(dst.Type().Elem())
		d.value(v, n.Elem(), path)
		dst.Set(n)
		return
	}
	if u, ok := dst.Addr().Interface().(encoding.TextUnmarshaler); ok {
		either := dst.Kind() == reflect.Struct && len(Fields(dst.Type())) > 0
		if v.Kind == Map && either {
			d.structure(v, dst, path)
		} else if v.Kind == List || v.Kind == Map {
			d.want(v, path, map[bool]string{false: "text", true: "text or a map"}[either])
		} else if err := u.UnmarshalText([]byte(v.Text)); err != nil {
			d.fault(v.Line, path, "%s", err)
		}
		return
	}
	switch dst.Kind() {
	case reflect.Struct:
		d.structure(v, dst, path)
	case reflect.Map:
		d.mapping(v, dst, path)
	case reflect.Slice:
		d.list(v, dst, path)
	case reflect.String:
		switch v.Kind {
		case Text:
			dst.SetString(v.Text)
		case Bool, Number:
			d.fault(v.Line, path, "want text, got %s: write %q in quotes", v.Kind, clip(v.Text))
		default:
			d.want(v, path, "text")
		}
	case reflect.Bool:
		if v.Kind != Bool {
			d.want(v, path, "true or false")
			return
		}
		dst.SetBool(v.Text == "true")
	default:
		d.number(v, dst, path)
	}
}

func (d *decoder) structure(v *Value, dst reflect.Value, path string) {
	if v.Kind != Map {
		d.want(v, path, "a map with "+strings.Join(Fields(dst.Type()), ", "))
		return
	}
	for _, k := range v.Keys {
		i := fieldOf(dst.Type(), k.Name)
		if i == nil {
			known := Fields(dst.Type())
			d.fault(k.Line, Join(path, keyText(k.Name)), "unknown key%s", Meant(k.Name, known))
			continue
		}
		d.value(k.Value, dst.FieldByIndex(i), Join(path, k.Name))
	}
}

// keyText writes a key of the document for a path, also one that is empty or endless.
func keyText(key string) string {
	if key == "" {
		return `""`
	}
	return clip(key)
}

func (d *decoder) mapping(v *Value, dst reflect.Value, path string) {
	if v.Kind != Map {
		d.want(v, path, "a map")
		return
	}
	m := reflect.MakeMapWithSize(dst.Type(), len(v.Keys))
	for _, k := range v.Keys {
		e := reflect.New(dst.Type().Elem()).Elem()
		d.value(k.Value, e, Join(path, clip(k.Name)))
		m.SetMapIndex(reflect.ValueOf(k.Name).Convert(dst.Type().Key()), e)
	}
	dst.Set(m)
}

func (d *decoder) list(v *Value, dst reflect.Value, path string) {
	if v.Kind != List {
		if e := dst.Type().Elem(); e.Kind() == reflect.Struct {
			d.want(v, path, "a list of maps with "+strings.Join(Fields(e), ", "))
		} else {
			d.want(v, path, "a list, such as [a, b]")
		}
		return
	}
	s := reflect.MakeSlice(dst.Type(), len(v.Items), len(v.Items))
	for i, e := range v.Items {
		if e.Kind == Null {
			d.fault(e.Line, Index(path, i), "nothing here; leave the entry out")
			continue
		}
		d.value(e, s.Index(i), Index(path, i))
	}
	dst.Set(s)
}

func (d *decoder) number(v *Value, dst reflect.Value, path string) {
	if dst.Type() == reflect.TypeFor[time.Duration]() {
		t, err := time.ParseDuration(v.Text)
		if err != nil || v.Kind == List || v.Kind == Map {
			d.want(v, path, "a duration such as 250ms")
			return
		}
		dst.SetInt(int64(t))
		return
	}
	switch dst.Kind() {
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		n, err := strconv.ParseInt(v.Text, 10, 64)
		if v.Kind != Number || err != nil || dst.OverflowInt(n) {
			d.want(v, path, "a whole number")
			return
		}
		dst.SetInt(n)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		n, err := strconv.ParseUint(v.Text, 10, 64)
		if v.Kind != Number || err != nil || dst.OverflowUint(n) {
			d.want(v, path, "a whole number, not negative")
			return
		}
		dst.SetUint(n)
	case reflect.Float32, reflect.Float64:
		f, err := strconv.ParseFloat(v.Text, 64)
		if v.Kind != Number || err != nil {
			d.want(v, path, "a number")
			return
		}
		dst.SetFloat(f)
	default:
		panic("document: field " + path + " of type " + dst.Type().String())
	}
}

// Fields returns the keys that a struct takes, in its order. Those of an embedded struct are its own.
func Fields(t reflect.Type) []string {
	names := make([]string, 0, t.NumField())
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Anonymous {
			names = append(names, Fields(f.Type)...)
		} else if n := keyOf(f); n != "" {
			names = append(names, n)
		}
	}
	return names
}

// fieldOf returns where the field of a key is, nil if there is none.
func fieldOf(t reflect.Type, key string) []int {
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Anonymous {
			if at := fieldOf(f.Type, key); at != nil {
				return append([]int{i}, at...)
			}
		} else if n := keyOf(f); n != "" && n == key {
			return []int{i}
		}
	}
	return nil
}

func keyOf(f reflect.StructField) string {
	if !f.IsExported() {
		return ""
	}
	n, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
	if n == "-" {
		return ""
	}
	return n
}
