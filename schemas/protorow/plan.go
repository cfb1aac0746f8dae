package protorow

import (
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/internal/cells"
)

// Message is one message type of a File. It is safe for concurrent use.
type Message struct {
	desc  protoreflect.MessageDescriptor
	plans cells.PerSchema[*plan]
}

// plan says what is done with the fields of a message that fills rows of a model's schema.
type plan struct {
	cells *cells.Plan
	root  *layout
	err   *schemas.Error // messages can never be rows
}

// layout is a message type as far as it is wanted.
type layout struct {
	dense   []*member // by field number
	sparse  map[protowire.Number]*member
	presets []preset
}

// preset is what a field is when its message does not hold it.
type preset struct {
	target int
	cell   cells.Cell
}

// member is a field that is wanted, or one that unsets others of its oneof.
type member struct {
	path   string
	kind   protoreflect.Kind
	wire   protowire.Type
	target int // -1: none of its own
	list   bool
	stamp  bool              // google.protobuf.Timestamp
	text   bool              // an enum for a column of text
	names  map[uint64]string // enum
	closed bool              // enum: other numbers are as if they were not there
	inside *layout           // message
	clears []int             // targets of the other members of its oneof
}

// maxName bounds texts of the schema that no byte, or one, of a message stands for: names of enums, defaults.
const maxName = 256

const noColumn = ", which no column can hold"

func (m *Message) plan(to *schemas.Schema) *plan {
	return m.plans.For(to, func(to *schemas.Schema) *plan {
		p := &plan{cells: cells.PlanOf(to)}
		p.root = p.fields(m.desc, "")
		return p
	})
}

// fields plans a message whose fields' names are told after prefix. It goes as deep as the names of columns do.
func (p *plan) fields(d protoreflect.MessageDescriptor, prefix string) *layout {
	l := &layout{sparse: map[protowire.Number]*member{}}
	for i := range d.Fields().Len() {
		f := d.Fields().Get(i)
		path := prefix + string(f.Name())
		target := p.cells.Target(path)
		if target < 0 && !p.cells.Inside(path) {
			continue
		}
		l.add(f.Number(), p.member(f, path, target))
		if c, ok := absent(f, l.at(f.Number())); ok {
			l.presets = append(l.presets, preset{target, c})
		}
	}
	for i := range d.Oneofs().Len() {
		l.oneof(d.Oneofs().Get(i))
	}
	return l
}

// denseFields is how many field numbers are looked up by index.
const denseFields = 256

func (l *layout) add(n protowire.Number, m *member) {
	if n >= denseFields {
		l.sparse[n] = m
		return
	}
	for int(n) >= len(l.dense) {
		l.dense = append(l.dense, nil)
	}
	l.dense[n] = m
}

func (l *layout) at(n protowire.Number) *member {
	if int(n) < len(l.dense) {
		return l.dense[n]
	}
	if n < denseFields {
		return nil
	}
	return l.sparse[n]
}

// oneof lets each member of a oneof unset the others that are wanted.
func (l *layout) oneof(o protoreflect.OneofDescriptor) {
	all := map[int][]int{}
	for i := range o.Fields().Len() {
		if m := l.at(o.Fields().Get(i).Number()); m != nil {
			all[i] = m.targets(nil)
		}
	}
	if len(all) == 0 || o.IsSynthetic() {
		return
	}
	for i := range o.Fields().Len() {
		f := o.Fields().Get(i)
		m := l.at(f.Number())
		if m == nil {
			m = &member{kind: f.Kind(), wire: wireType(f.Kind()), target: -1}
			l.add(f.Number(), m)
		}
		for j, ts := range all {
			if j != i {
				m.clears = append(m.clears, ts...)
			}
		}
	}
}

// targets are all that a field fills.
func (m *member) targets(out []int) []int {
	if m.target >= 0 {
		out = append(out, m.target)
	}
	if l := m.inside; l != nil {
		for _, c := range l.dense {
			if c != nil {
				out = c.targets(out)
			}
		}
		for _, c := range l.sparse {
			out = c.targets(out)
		}
	}
	return out
}

func (p *plan) member(f protoreflect.FieldDescriptor, path string, target int) *member {
	m := &member{path: path, kind: f.Kind(), wire: wireType(f.Kind()), target: target, list: f.IsList()}
	switch {
	case f.IsMap():
		p.refuse(m, "is a map"+noColumn)
	case f.Message() != nil:
		p.message(m, f)
	case target < 0:
		p.refuse(m, "is no message, as the name of a column asks")
	case m.list && (p.cells.Targets[target].Elem >= 0 || p.cells.Targets[target].Field.Shape == nil):
		p.refuse(m, "is repeated"+noColumn)
	case f.Enum() != nil:
		m.text = p.cells.Targets[target].Field.Type.Variable()
		m.closed = f.Enum().IsClosed()
		m.names = map[uint64]string{}
		for vs, i := f.Enum().Values(), f.Enum().Values().Len()-1; i >= 0; i-- { // of aliases the first counts
			if len(vs.Get(i).Name()) > maxName {
				p.refuse(m, "is an enum with a name of more than 256 bytes")
			}
			m.names[uint64(uint32(vs.Get(i).Number()))] = string(vs.Get(i).Name())
		}
	}
	if f.HasDefault() && (m.kind == protoreflect.StringKind && len(f.Default().String()) > maxName || m.kind == protoreflect.BytesKind && len(f.Default().Bytes()) > maxName) {
		p.refuse(m, "has a default of more than 256 bytes")
	}
	return m
}

func (p *plan) message(m *member, f protoreflect.FieldDescriptor) {
	d := f.Message()
	switch name := d.FullName(); {
	case m.list:
		p.refuse(m, "is repeated messages"+noColumn)
	case m.target < 0:
		m.inside = p.fields(d, m.path+".")
	case name == "google.protobuf.Timestamp":
		m.stamp = true
	case wrappers[name]:
		v := d.Fields().ByNumber(1)
		in := p.member(v, m.path, m.target)
		m.inside = &layout{}
		m.inside.add(1, in)
		if c, ok := absent(v, in); ok {
			m.inside.presets = []preset{{m.target, c}}
		}
		m.target = -1
	case name == "confluent.type.Decimal" || name == "google.type.Decimal":
		p.refuse(m, "is a decimal"+noColumn+": write a double")
	default:
		p.refuse(m, "is a message"+noColumn+": name one of its fields, with a dot")
	}
}

var wrappers = map[protoreflect.FullName]bool{"google.protobuf.DoubleValue": true, "google.protobuf.FloatValue": true,
	"google.protobuf.Int64Value": true, "google.protobuf.UInt64Value": true, "google.protobuf.Int32Value": true,
	"google.protobuf.UInt32Value": true, "google.protobuf.BoolValue": true, "google.protobuf.StringValue": true, "google.protobuf.BytesValue": true}

// refuse notes the first field that makes every message unfit.
func (p *plan) refuse(m *member, why string) {
	if p.err == nil {
		p.err = schemas.FieldErrorf(schemas.Invalid, op, m.path, "the Protobuf field %s", why)
	}
}

// absent is the value of a field that its message does not hold; none for one that then is missing.
func absent(f protoreflect.FieldDescriptor, m *member) (c cells.Cell, ok bool) {
	if m.target < 0 || m.stamp || f.IsList() || f.IsMap() || f.Message() != nil || f.ContainingOneof() != nil || f.HasPresence() && !f.HasDefault() {
		return c, false
	}
	v := f.Default()
	switch f.Kind() {
	case protoreflect.BoolKind:
		return cells.Bool(v.Bool()), true
	case protoreflect.EnumKind:
		return m.enum(uint64(uint32(v.Enum()))), true
	case protoreflect.StringKind:
		return cells.String(v.String()), true
	case protoreflect.BytesKind:
		return cells.Bytes(v.Bytes()), true
	case protoreflect.FloatKind, protoreflect.DoubleKind:
		return cells.Float(v.Float()), true
	case protoreflect.Uint32Kind, protoreflect.Uint64Kind, protoreflect.Fixed32Kind, protoreflect.Fixed64Kind:
		return cells.Uint(v.Uint()), true
	}
	return cells.Int(v.Int()), true
}

func wireType(k protoreflect.Kind) protowire.Type {
	switch k {
	case protoreflect.Fixed32Kind, protoreflect.Sfixed32Kind, protoreflect.FloatKind:
		return protowire.Fixed32Type
	case protoreflect.Fixed64Kind, protoreflect.Sfixed64Kind, protoreflect.DoubleKind:
		return protowire.Fixed64Type
	case protoreflect.StringKind, protoreflect.BytesKind, protoreflect.MessageKind:
		return protowire.BytesType
	case protoreflect.GroupKind:
		return protowire.StartGroupType
	}
	return protowire.VarintType
}
