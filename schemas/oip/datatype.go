package oip

import "github.com/leatstream/leat/schemas"

var names = [...]string{
	schemas.Bool: "BOOL", schemas.Int8: "INT8", schemas.Int16: "INT16", schemas.Int32: "INT32", schemas.Int64: "INT64",
	schemas.Uint8: "UINT8", schemas.Uint16: "UINT16", schemas.Uint32: "UINT32", schemas.Uint64: "UINT64",
	schemas.Float16: "FP16", schemas.Float32: "FP32", schemas.Float64: "FP64",
	schemas.String: "BYTES", schemas.Binary: "BYTES", schemas.Timestamp: "INT64",
}

// Datatype returns the protocol's name of a dtype.
func Datatype(t schemas.DType) string { return names[t] }

// DType is the inverse of Datatype: BYTES is String, INT64 is Int64.
func DType(name string) (schemas.DType, error) {
	for t := schemas.Bool; int(t) < len(names); t++ {
		if names[t] == name {
			return t, nil
		}
	}
	return 0, schemas.Errorf(schemas.Invalid, op, "unknown datatype %q", clip(name))
}

// ServerMetadata answers GET /v2.
type ServerMetadata struct {
	Name       string   `json:"name"`
	Version    string   `json:"version"`
	Extensions []string `json:"extensions"`
}

// Extensions are those of the protocol that this package speaks.
func Extensions() []string { return []string{"binary_tensor_data"} }

// TensorMetadata describes one input or output; shape begins with -1, the rows.
type TensorMetadata struct {
	Name     string  `json:"name"`
	Datatype string  `json:"datatype"`
	Shape    []int64 `json:"shape"`
}

// ModelMetadata answers GET /v2/models/{name}.
type ModelMetadata struct {
	Name     string           `json:"name"`
	Versions []string         `json:"versions"`
	Platform string           `json:"platform"`
	Inputs   []TensorMetadata `json:"inputs"`
	Outputs  []TensorMetadata `json:"outputs"`
}

// Metadata returns what the protocol says of a model of this signature.
func Metadata(name string, versions []string, platform string, sig schemas.Signature) ModelMetadata {
	return ModelMetadata{Name: name, Versions: versions, Platform: platform, Inputs: tensors(sig.Inputs), Outputs: tensors(sig.Outputs)}
}

func tensors(s *schemas.Schema) []TensorMetadata {
	ts := []TensorMetadata{}
	for i := range s.Len() {
		f := s.Field(i)
		t := TensorMetadata{Name: f.Name, Datatype: Datatype(f.Type), Shape: []int64{-1}}
		for _, d := range f.Shape {
			t.Shape = append(t.Shape, int64(d))
		}
		ts = append(ts, t)
	}
	return ts
}
