package expr

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/ast"
	"github.com/google/cel-go/common/types"
	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/document"
)

// Bounds on an expression, so that a hostile one costs no more than a long one.
const (
	MaxSource   = 8192 // characters
	MaxDepth    = 256  // nodes from the whole to the innermost: a sum of 256 columns
	MaxBrackets = 48   // brackets within each other
)

// fault is a compile error; what finds one deep inside panics with it, and Compile returns it.
type fault struct {
	line, col int // from 1
	text      string
}

func (f fault) Error() string { return fmt.Sprintf("%d:%d: %s", f.line, f.col, f.text) }

// checked parses and type-checks. The AST that it returns names no column that is not there, calls no function that is
// not in the table, and has no node that we do not run.
func checked(src string, env *Env) (*ast.AST, *fault) {
	if f := bounded(src); f != nil {
		return nil, f
	}
	base, err := language()
	if err != nil {
		return nil, &fault{1, 1, "the language itself is broken: " + err.Error()}
	}
	reg, err := types.NewProtoRegistry()
	if err != nil {
		return nil, &fault{1, 1, "the language itself is broken: " + err.Error()}
	}
	opts := []cel.EnvOption{cel.CustomTypeAdapter(reg), cel.CustomTypeProvider(provider{reg, env})}
	for _, name := range []string{env.input(), "output"} {
		if env.side(name) != nil {
			opts = append(opts, cel.Variable(name, cel.ObjectType(name)))
		}
	}
	e, err := base.Extend(opts...)
	if err != nil {
		return nil, &fault{1, 1, "the columns cannot be declared: " + err.Error()}
	}
	parsed, iss := e.Parse(src)
	if iss.Err() != nil {
		return nil, syntaxFault(iss)
	}
	w := walker{env: env, ast: parsed.NativeRep(), fac: ast.NewExprFactory()}
	w.walk(w.ast.Expr(), 1)
	if w.fault != nil {
		return nil, w.fault
	}
	done, iss := e.Check(parsed)
	if iss.Err() != nil {
		return nil, typeFault(iss, w.ast)
	}
	return done.NativeRep(), nil
}

// bounded refuses what would cost the parser too much, before it starts.
func bounded(src string) *fault {
	if !utf8.ValidString(src) {
		return &fault{1, 1, "not UTF-8"}
	}
	if strings.TrimSpace(src) == "" {
		return &fault{1, 1, "no expression; want one such as input.COLUMN > 0.5"}
	}
	if n := utf8.RuneCountInString(src); n > MaxSource {
		return &fault{1, 1, fmt.Sprintf("%d characters: an expression has at most %d", n, MaxSource)}
	}
	// Brackets in text count too where quotes are not told apart: the bound is generous enough for that.
	depth, line, col := 0, 1, 0
	for _, r := range src {
		col++
		switch r {
		case '\n':
			line, col = line+1, 0
		case '(', '[', '{':
			if depth++; depth > MaxBrackets {
				return &fault{line, col, fmt.Sprintf("more than %d brackets within each other", MaxBrackets)}
			}
		case ')', ']', '}':
			depth = max(0, depth-1)
		}
	}
	return nil
}

// walker looks at the parsed AST before the checker does, for errors that it can say better, and rewrites input["name"],
// for names that cannot follow a dot, to a selection.
type walker struct {
	env   *Env
	ast   *ast.AST
	fac   ast.ExprFactory
	fault *fault
}

func (w *walker) fail(e ast.Expr, format string, args ...any) {
	if w.fault == nil {
		w.fault = faultAt(w.ast, e, format, args...)
	}
}

func faultAt(a *ast.AST, e ast.Expr, format string, args ...any) *fault {
	l := a.SourceInfo().GetStartLocation(e.ID())
	return &fault{max(1, l.Line()), max(0, l.Column()) + 1, fmt.Sprintf(format, args...)}
}

func (w *walker) walk(e ast.Expr, depth int) {
	if w.fault != nil {
		return
	}
	if depth > MaxDepth {
		w.fail(e, "nested too deeply: at most %d levels", MaxDepth)
		return
	}
	switch e.Kind() {
	case ast.LiteralKind:
	case ast.IdentKind:
		w.ident(e)
	case ast.SelectKind:
		w.selected(e, depth)
	case ast.CallKind:
		w.call(e, depth)
	case ast.ListKind:
		l := e.AsList()
		if len(l.OptionalIndices()) > 0 {
			w.fail(e, "optional elements are not run here")
		}
		for _, x := range l.Elements() {
			w.walk(x, depth+1)
		}
	case ast.MapKind:
		w.fail(e, "maps are not run here; want columns, lists and scalars")
	case ast.StructKind:
		w.fail(e, "messages (%s{...}) are not run here", e.AsStruct().TypeName())
	case ast.ComprehensionKind:
		w.fail(e, "comprehensions (all, exists, map, filter) are not run here; max, min, sum, mean, argmax and in work on lists")
	default:
		w.fail(e, "this is not run here")
	}
}

func (w *walker) ident(e ast.Expr) {
	name := strings.TrimPrefix(e.AsIdent(), ".")
	switch {
	case w.env.side(name) != nil:
		w.fail(e, "%s is no value; write %s.COLUMN", name, name)
	case name == "output":
		w.fail(e, "there is no output here; want %s.COLUMN", w.env.input())
	default:
		for _, side := range []string{w.env.input(), "output"} {
			if s := w.env.side(side); s != nil {
				if _, ok := find(s, name); ok {
					w.fail(e, "unknown name %q; did you mean %s.%s?", name, side, name)
					return
				}
			}
		}
		w.fail(e, "unknown name %q; columns are written %s.COLUMN%s", name, w.env.input(), w.orOutput())
	}
}

func (w *walker) orOutput() string {
	if w.env.Output != nil {
		return " or output.COLUMN"
	}
	return ""
}

// variable returns the schema that an identifier stands for.
func (w *walker) variable(e ast.Expr) (string, *schemas.Schema) {
	if e.Kind() != ast.IdentKind {
		return "", nil
	}
	name := strings.TrimPrefix(e.AsIdent(), ".")
	return name, w.env.side(name)
}

func (w *walker) selected(e ast.Expr, depth int) {
	sel := e.AsSelect()
	side, s := w.variable(sel.Operand())
	if s == nil {
		w.walk(sel.Operand(), depth+1)
		w.fail(e, "no field %q here: a column has none", sel.FieldName())
		return
	}
	if _, ok := find(s, sel.FieldName()); !ok {
		name, names := sel.FieldName(), columnNames(s)
		for _, n := range names { // input.dep-delay is a subtraction to the parser
			if rest, ok := strings.CutPrefix(n, name); ok && strings.ContainsAny(rest[:1], "- ./") {
				w.fail(e, "no column %q in %s; did you mean %s[%q]?", name, side, side, n)
			}
		}
		w.fail(e, "no column %q in %s%s", name, side, document.Meant(name, names))
	}
}

var comprehensions = map[string]bool{"all": true, "exists": true, "exists_one": true, "existsOne": true, "map": true, "filter": true,
	"transformList": true, "transformMap": true, "transformMapEntry": true}

func (w *walker) call(e ast.Expr, depth int) {
	call := e.AsCall()
	name := call.FunctionName()
	if name == "_[_]" && w.indexed(e, call) {
		w.selected(e, depth)
		return
	}
	if symbol(name) == "" || strings.Contains(name, "?") && name != "_?_:_" {
		switch {
		case comprehensions[name]:
			w.fail(e, "comprehensions (%s) are not run here; max, min, sum, mean, argmax and in work on lists", name)
			return
		case name == "has":
			w.fail(e, hasUsage)
			return
		case strings.Contains(name, "?"):
			w.fail(e, "optional values are not run here")
			return
		case name == "dyn" || name == "type":
			w.fail(e, "%s() is not run here: every column has one type", name)
			return
		case usages()[name] == "":
			w.fail(e, "no function %q%s", name, meantFunction(name))
			return
		}
	}
	if call.IsMemberFunction() {
		w.walk(call.Target(), depth+1)
	}
	for _, a := range call.Args() {
		w.walk(a, depth+1)
	}
}

func meantFunction(name string) string {
	if n := document.Near(name, functionNames()); n != "" {
		return fmt.Sprintf("; did you mean %s?", usages()[n])
	}
	return ""
}

// indexed rewrites input["name"] to a selection; a name may hold what no identifier can.
func (w *walker) indexed(e ast.Expr, call ast.CallExpr) bool {
	args := call.Args()
	if len(args) != 2 || args[1].Kind() != ast.LiteralKind {
		return false
	}
	name, ok := args[1].AsLiteral().(types.String)
	if _, s := w.variable(args[0]); !ok || s == nil {
		return false
	}
	e.SetKindCase(w.fac.NewSelect(e.ID(), args[0], string(name)))
	return true
}
