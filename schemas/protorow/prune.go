package protorow

import (
	"google.golang.org/protobuf/types/descriptorpb"
)

// needed keeps the options that say how bytes are read or that names do not clash.
func needed(options []*descriptorpb.UninterpretedOption) (out []*descriptorpb.UninterpretedOption) {
	for _, o := range options {
		if len(o.Name) == 0 || o.Name[0].GetIsExtension() {
			continue
		}
		switch o.Name[0].GetNamePart() {
		case "packed", "default", "features", "allow_alias", "message_set_wire_format", "json_name":
			out = append(out, o)
		}
	}
	return out
}

func pruneMessage(m *descriptorpb.DescriptorProto) {
	if o := m.Options; o != nil {
		o.UninterpretedOption = needed(o.UninterpretedOption)
	}
	for _, f := range m.Field {
		pruneField(f)
	}
	for _, f := range m.Extension {
		pruneField(f)
	}
	for _, e := range m.EnumType {
		pruneEnum(e)
	}
	for _, r := range m.ExtensionRange {
		r.Options = nil
	}
	for _, x := range m.OneofDecl {
		if o := x.Options; o != nil {
			o.UninterpretedOption = needed(o.UninterpretedOption)
		}
	}
	for _, n := range m.NestedType {
		pruneMessage(n)
	}
}

func pruneField(f *descriptorpb.FieldDescriptorProto) {
	if o := f.Options; o != nil {
		o.UninterpretedOption = needed(o.UninterpretedOption)
	}
}

func pruneEnum(e *descriptorpb.EnumDescriptorProto) {
	if o := e.Options; o != nil {
		o.UninterpretedOption = needed(o.UninterpretedOption)
	}
	for _, v := range e.Value {
		v.Options = nil
	}
}
