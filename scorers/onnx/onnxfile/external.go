package onnxfile

import (
	"strconv"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/leatstream/leat/schemas"
)

// MaxBytes is the largest model, weights included: protobuf readers take no message of 2 GiB.
const MaxBytes = 1<<31 - 1<<20

// External is where a tensor says that its data lies.
type External struct {
	Location string // path below the model's folder; not yet checked
	Offset   int64
	Length   int64 // what the tensor's shape and type need
}

// CheckSelfContained returns an Invalid error if a tensor's data lies outside the file. The runtime would look for it
// below the process's working folder.
func CheckSelfContained(b []byte) error {
	_, err := editTensors(model, b, 0, func(t []byte) ([]byte, error) {
		ext, err := external(t)
		if err == nil && ext != nil {
			err = schemas.Errorf(schemas.Invalid, "onnxfile.CheckSelfContained", "the model keeps weights in another file (%q)", clip(ext.Location))
		}
		return t, err
	})
	return err
}

// Inline returns the model with all external data put inside; read returns exactly e.Length bytes of e.Location from
// e.Offset on, and is what refuses paths. b itself comes back when no data is external. Invalid if the result would
// pass MaxBytes.
func Inline(b []byte, read func(e External) ([]byte, error)) ([]byte, error) {
	total := int64(len(b))
	return editTensors(model, b, 0, func(t []byte) ([]byte, error) {
		ext, err := external(t)
		if err != nil || ext == nil {
			return t, err
		}
		if total += ext.Length; total > MaxBytes {
			return nil, schemas.Errorf(schemas.Invalid, "onnxfile.Inline", "the model and its external data are larger than 2 GiB: such models are not taken")
		}
		data, err := read(*ext)
		if err != nil {
			return nil, err
		}
		out := make([]byte, 0, len(t)+len(data))
		err = each(t, func(f field) error {
			if f.num != 13 && f.num != 14 {
				out = append(out, f.raw...)
			}
			return nil
		})
		return appendMessage(out, 9, data), err
	})
}

// external returns where a TensorProto's data lies, nil if it is inside.
func external(t []byte) (*External, error) {
	var e External
	var marked bool
	var typ Elem
	elems := int64(1)
	length := int64(-1)
	err := each(t, func(f field) error {
		switch f.num {
		case 1:
			bad := false
			if err := packed(f, func(d uint64) {
				if n := int64(d); n < 0 || n > MaxBytes || (n > 0 && elems > MaxBytes/n) {
					bad = true
				} else {
					elems *= n
				}
			}); err != nil {
				return err
			}
			if bad {
				return broken("a tensor of impossible shape")
			}
		case 2:
			typ = Elem(int32(f.n))
		case 13:
			marked = true
			k, v, err := pair(f.val)
			if err != nil {
				return err
			}
			switch k {
			case "location":
				e.Location = string(v.val)
			case "offset":
				e.Offset, err = strconv.ParseInt(string(v.val), 10, 64)
			case "length":
				length, err = strconv.ParseInt(string(v.val), 10, 64)
			}
			if err != nil || e.Offset < 0 {
				return broken("external data with a damaged " + k)
			}
		case 14:
			marked = marked || (f.typ == protowire.VarintType && f.n != 0)
		}
		return nil
	})
	if err != nil || !marked {
		return nil, err
	}
	if typ < 0 || int(typ) >= len(bits) || bits[typ] == 0 {
		return nil, broken("external data of a type that has no fixed size")
	}
	e.Length = (elems*int64(bits[typ]) + 7) / 8
	if e.Location == "" {
		return nil, broken("external data without a location")
	}
	if length >= 0 && length != e.Length {
		return nil, broken("external data whose length does not fit its shape")
	}
	return &e, nil
}

func clip(s string) string {
	if len(s) > 80 {
		return s[:77] + "..."
	}
	return s
}
