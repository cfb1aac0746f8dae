package expr

import (
	"fmt"
	"sort"
	"strings"
	"sync"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/types"
)

// function is one row of the table of what expressions may call: cel-go's checker resolves overloads from it, and error
// lines quote usage.
//
// A signature is ARGUMENTS>RESULT, one letter a type: b bool, i int, u uint, d double, s string, y bytes, t timestamp,
// r duration, n null, A any one type; L before a letter: a list of it. A leading dot makes the first argument the
// receiver: x.f(y).
type function struct {
	name  string
	usage string // for error lines; "" for operators
	sigs  string
}

var (
	numbers = []string{"i", "u", "d"}
	scalars = []string{"b", "i", "u", "d", "s", "y", "t", "r"}
)

// functions is the whole language; nothing else type-checks.
var functions = []function{
	{"_&&_", "", "bb>b"},
	{"_||_", "", "bb>b"},
	{"!_", "", "b>b"},
	{"-_", "", "i>i d>d r>r"},
	{"_+_", "", "ii>i uu>u dd>d ss>s yy>y tr>t rt>t rr>r LALA>LA"},
	{"_-_", "", "ii>i uu>u dd>d tt>r tr>t rr>r"},
	{"_*_", "", "ii>i uu>u dd>d"},
	{"_/_", "", "ii>i uu>u dd>d"},
	{"_%_", "", "ii>i uu>u"},
	{"_==_", "", equalities()},
	{"_!=_", "", equalities()},
	{"_<_", "", orders()},
	{"_<=_", "", orders()},
	{"_>_", "", orders()},
	{"_>=_", "", orders()},
	{"@in", "", memberships()},
	{"_[_]", "", "LAi>A LAu>A"},
	{"_?_:_", "", choices()},

	{"size", "size(text or list)", "s>i .s>i y>i .y>i LA>i .LA>i"},
	{"startsWith", "text.startsWith(text)", ".ss>b"},
	{"endsWith", "text.endsWith(text)", ".ss>b"},
	{"contains", "text.contains(text)", ".ss>b"},
	{"matches", "text.matches(PATTERN)", ".ss>b ss>b"},
	{"lowerAscii", "text.lowerAscii()", ".s>s"},
	{"upperAscii", "text.upperAscii()", ".s>s"},

	{"max", "max(list of numbers) or max(a, b) of one type", reductions()},
	{"min", "min(list of numbers) or min(a, b) of one type", reductions()},
	{"sum", "sum(list of numbers)", "Li>i Lu>u Ld>d"},
	{"mean", "mean(list of numbers)", "Li>d Lu>d Ld>d"},
	{"argmax", "argmax(list of numbers)", "Li>i Lu>i Ld>i"},

	{"coalesce", "coalesce(a, b, ...) of one type", "AA>A AAA>A AAAA>A AAAAA>A AAAAAA>A"},
	{"abs", "abs(int or double)", "i>i d>d"},
	{"floor", "floor(double)", "d>d"},
	{"ceil", "ceil(double)", "d>d"},
	{"round", "round(double)", "d>d"},
	{"sqrt", "sqrt(number)", "i>d u>d d>d"},
	{"log", "log(number)", "i>d u>d d>d"},
	{"exp", "exp(number)", "i>d u>d d>d"},
	{"pow", "pow(number, number)", pairs("%s%s>d")},
	{"clamp", "clamp(x, lo, hi) of one number type", "iii>i uuu>u ddd>d"},
	{"is_nan", "is_nan(double)", "d>b"},
	{"bucket", "bucket(number, [boundaries])", pairs("%sL%s>i")},
	{"one_hot", "one_hot(x, [values]) of one type: text, int, uint or bool", "sLs>Ld iLi>Ld uLu>Ld bLb>Ld"},

	{"bool", "bool(text)", "b>b s>b"},
	{"int", "int(number, text, bool, timestamp or duration)", "i>i u>i d>i s>i b>i t>i r>i Li>Li Lu>Li Ld>Li Lb>Li"},
	{"uint", "uint(number, text or bool)", "i>u u>u d>u s>u b>u Li>Lu Lu>Lu Ld>Lu Lb>Lu"},
	{"double", "double(number, text or bool)", "i>d u>d d>d s>d b>d Li>Ld Lu>Ld Ld>Ld Lb>Ld"},
	{"int32", "int32(number, text or bool)", "i>i u>i d>i s>i b>i Li>Li Lu>Li Ld>Li Lb>Li"},
	{"float32", "float32(number, text or bool)", "i>d u>d d>d s>d b>d Li>Ld Lu>Ld Ld>Ld Lb>Ld"},
	{"string", "string(value)", "i>s u>s d>s s>s b>s y>s t>s"},
	{"bytes", "bytes(text)", "s>y y>y"},
	{"timestamp", "timestamp(text or int)", "s>t i>t t>t"},
	{"duration", `duration("1h30m")`, "s>r r>r"},

	{"getFullYear", "timestamp.getFullYear()", ".t>i .ts>i"},
	{"getMonth", "timestamp.getMonth()", ".t>i .ts>i"},
	{"getDate", "timestamp.getDate()", ".t>i .ts>i"},
	{"getDayOfMonth", "timestamp.getDayOfMonth()", ".t>i .ts>i"},
	{"getDayOfWeek", "timestamp.getDayOfWeek()", ".t>i .ts>i"},
	{"getDayOfYear", "timestamp.getDayOfYear()", ".t>i .ts>i"},
	{"getHours", "timestamp.getHours()", ".t>i .ts>i .r>i"},
	{"getMinutes", "timestamp.getMinutes()", ".t>i .ts>i .r>i"},
	{"getSeconds", "timestamp.getSeconds()", ".t>i .ts>i .r>i"},
	{"getMilliseconds", "timestamp.getMilliseconds()", ".t>i .ts>i .r>i"},
}

// pairs formats a signature for each pair of number types.
func pairs(format string) string {
	var s []string
	for _, a := range numbers {
		for _, b := range numbers {
			s = append(s, fmt.Sprintf(format, a, b))
		}
	}
	return strings.Join(s, " ")
}

func equalities() string {
	s := []string{pairs("%s%s>b"), "bb>b ss>b yy>b tt>b rr>b LALA>b nn>b LAn>b nLA>b"}
	for _, x := range scalars {
		s = append(s, x+"n>b", "n"+x+">b")
	}
	return strings.Join(s, " ")
}

func orders() string { return pairs("%s%s>b") + " bb>b ss>b yy>b tt>b rr>b" }

func memberships() string {
	return "iLi>b uLu>b dLd>b iLd>b uLd>b dLi>b dLu>b iLu>b uLi>b bLb>b sLs>b yLy>b tLt>b rLr>b"
}

func choices() string {
	s := []string{"bLALA>LA bLAn>LA bnLA>LA"}
	for _, x := range scalars {
		s = append(s, "b"+x+x+">"+x, "b"+x+"n>"+x, "bn"+x+">"+x)
	}
	return strings.Join(s, " ")
}

func reductions() string { return "Li>i Lu>u Ld>d ii>i uu>u dd>d" }

var letters = map[byte]*cel.Type{
	'b': cel.BoolType, 'i': cel.IntType, 'u': cel.UintType, 'd': cel.DoubleType, 's': cel.StringType, 'y': cel.BytesType,
	't': cel.TimestampType, 'r': cel.DurationType, 'n': cel.NullType, 'A': cel.TypeParamType("A"),
}

// signature reads one signature of the table.
func signature(sig string) (args []*cel.Type, result *cel.Type, member bool) {
	sig, member = strings.CutPrefix(sig, ".")
	list := false
	for i := range len(sig) {
		switch sig[i] {
		case 'L':
			list = true
			continue
		case '>':
			continue
		}
		t := letters[sig[i]]
		if list {
			t, list = cel.ListType(t), false
		}
		if i == len(sig)-1 {
			return args, t, member
		}
		args = append(args, t)
	}
	panic("expr: signature " + sig)
}

// usages maps the functions that people write by name to how they are called.
var usages = sync.OnceValue(func() map[string]string {
	m := map[string]string{"has": "has(input.COLUMN)"}
	for _, f := range functions {
		if f.usage != "" {
			m[f.name] = f.usage
		}
	}
	return m
})

// functionNames is what a misspelt function may have been meant to be.
var functionNames = sync.OnceValue(func() []string {
	var names []string
	for n := range usages() {
		names = append(names, n)
	}
	sort.Strings(names)
	return names
})

// language is the environment without variables: CEL's grammar, the macro has, and the table. CEL's standard library is
// left out, so that what type-checks is what we run.
var language = sync.OnceValues(func() (*cel.Env, error) {
	opts := []cel.EnvOption{
		cel.Macros(cel.HasMacro),
		cel.EnableIdentifierEscapeSyntax(),
		cel.ParserExpressionSizeLimit(MaxSource),
		cel.ParserRecursionLimit(4 * MaxDepth),
		cel.ParserErrorRecoveryLimit(4),
	}
	for _, f := range functions {
		var os []cel.FunctionOpt
		for _, sig := range strings.Fields(f.sigs) {
			args, result, member := signature(sig)
			if member {
				os = append(os, cel.MemberOverload(f.name+" "+sig, args, result))
			} else {
				os = append(os, cel.Overload(f.name+" "+sig, args, result))
			}
		}
		opts = append(opts, cel.Function(f.name, os...))
	}
	return cel.NewCustomEnv(opts...)
})

// provider tells cel-go's checker the columns: input and output are messages whose fields they are.
type provider struct {
	*types.Registry
	env *Env
}

func (p provider) FindStructType(name string) (*types.Type, bool) {
	if p.env.side(name) == nil {
		return nil, false
	}
	return types.NewTypeTypeWithParam(types.NewObjectType(name)), true
}

func (p provider) FindStructFieldNames(name string) ([]string, bool) {
	s := p.env.side(name)
	if s == nil {
		return nil, false
	}
	return columnNames(s), true
}

func (p provider) FindStructFieldType(name, field string) (*types.FieldType, bool) {
	s := p.env.side(name)
	if s == nil {
		return nil, false
	}
	r, ok := find(s, field)
	if !ok {
		return nil, false
	}
	t := kindOf(r.field.Type).cel()
	if r.field.Tensor() && r.element < 0 {
		t = types.NewListType(t)
	}
	return &types.FieldType{Type: t}, true
}
