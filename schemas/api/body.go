package api

import (
	"encoding/json"
	"errors"
	"io"
	"reflect"
	"strings"

	"github.com/leatstream/leat/schemas"
)

// decodeJSON reads one JSON object without fields that v has not. Nothing at all is an empty object.
func decodeJSON(r io.Reader, v any) error {
	d := json.NewDecoder(r)
	d.DisallowUnknownFields()
	switch err := d.Decode(v); {
	case err == io.EOF:
		return nil
	case err != nil:
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("something follows the object")
	}
	return nil
}

// bodyError says what is wrong with a body in words of JSON, not of the Go types that it is read into.
func bodyError(op string, err error) error {
	if e := (*schemas.Error)(nil); errors.As(err, &e) { // a request that reads itself names its own fields
		return e
	}
	var t *json.UnmarshalTypeError
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return schemas.Errorf(schemas.Invalid, op, "body: the JSON ends too early")
	case !errors.As(err, &t):
		return schemas.Errorf(schemas.Invalid, op, "body: %s", strings.TrimPrefix(err.Error(), "json: "))
	}
	var path []string
	for name := range strings.SplitSeq(t.Field, ".") {
		if name != "" && (name[0] < 'A' || name[0] > 'Z') { // an embedded struct is no field of the JSON; all of ours begin in lower case
			path = append(path, name)
		}
	}
	if len(path) == 0 {
		return schemas.Errorf(schemas.Invalid, op, "body: want %s, got %s", jsonKind(t.Type), t.Value)
	}
	return schemas.FieldErrorf(schemas.Invalid, op, strings.Join(path, "."), "want %s, got %s", jsonKind(t.Type), t.Value)
}

// jsonKind names what JSON has for a Go type.
func jsonKind(t reflect.Type) string {
	switch t.Kind() {
	case reflect.String:
		return "a string"
	case reflect.Bool:
		return "true or false"
	case reflect.Float32, reflect.Float64:
		return "a number"
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return "a whole number"
	case reflect.Slice, reflect.Array:
		return "a list"
	}
	return "an object"
}
