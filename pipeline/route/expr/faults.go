package expr

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common"
	"github.com/google/cel-go/common/ast"
)

var expecting = regexp.MustCompile(`,? expecting .*$|, .* expecting .*$`)

// syntaxFault says in one line where the parser gave up.
func syntaxFault(iss *cel.Issues) *fault {
	errs := iss.Errors()
	f := locate(errs[0])
	t := strings.TrimPrefix(errs[0].Message, "Syntax error: ")
	t = strings.Join(strings.Fields(expecting.ReplaceAllString(t, "")), " ")
	switch {
	case strings.Contains(t, "'<EOF>'"):
		t = "the expression ends too early"
	case strings.Contains(t, "recursion"):
		t = fmt.Sprintf("nested too deeply: at most %d levels", MaxDepth)
	case strings.Contains(t, "limit exceeded"):
		t = "too much is wrong here to say what"
	case strings.Contains(t, "invalid argument to has()"):
		t = hasUsage
	case strings.HasPrefix(t, "token recognition error at: '"):
		if bad := strings.TrimSuffix(strings.TrimPrefix(t, "token recognition error at: '"), "'"); bad != "" && strings.ContainsAny(bad[:1], "'\"`") {
			t = "the quotation mark is never closed"
		} else {
			t = fmt.Sprintf("%q does not belong here", bad)
		}
	}
	for _, from := range []string{"mismatched input ", "extraneous input ", "no viable alternative at input "} {
		t = strings.Replace(t, from, "unexpected ", 1)
	}
	if m := reserved.FindStringSubmatch(t); m != nil {
		t = fmt.Sprintf("%q is a word of CEL; write input[%q]", m[1], m[1])
	} else if word.MatchString(t) {
		t += `; a name with other characters than a-z, 0-9 and _ is written input["NAME"]`
	}
	f.text = t
	return f
}

var (
	reserved = regexp.MustCompile(`^unexpected '\.(in|true|false|null)'$`)
	word     = regexp.MustCompile(`^unexpected '[a-zA-Z]\w*'$`)
)

const hasUsage = "has() takes input.COLUMN or output.COLUMN; for input[\"A NAME\"] write input[\"A NAME\"] != null"

func locate(e *common.Error) *fault {
	return &fault{line: max(1, e.Location.Line()), col: max(0, e.Location.Column()) + 1}
}

var applied = regexp.MustCompile(`^found no matching overload for '(.*)' applied to '(.*)'$`)

// typeFault translates what the checker found first.
func typeFault(iss *cel.Issues, a *ast.AST) *fault {
	errs := iss.Errors()
	f := locate(errs[0])
	f.text = errs[0].Message
	if m := applied.FindStringSubmatch(f.text); m != nil {
		f.text = misapplied(m[1], m[2])
	} else {
		f.text = strings.ReplaceAll(f.text, "(in container '')", "")
	}
	f.text = strings.Join(strings.Fields(f.text), " ")
	if len(errs) > 1 {
		f.text += fmt.Sprintf(" (and %d more)", len(errs)-1)
	}
	return f
}

var protoNames = strings.NewReplacer("google.protobuf.Timestamp", "timestamp", "google.protobuf.Duration", "duration", "null_type", "null")

// misapplied says of a call whose arguments' types fit no signature what would fit.
func misapplied(name, args string) string {
	args = protoNames.Replace(args)
	op := symbol(name)
	if op == "" {
		if dot := strings.Index(args, ".("); dot >= 0 {
			args = args[:dot] + "." + name + args[dot+1:]
		} else {
			args = name + args
		}
		return "there is no " + args + "; want " + usages()[name]
	}
	ts := splitTypes(strings.Trim(args, "()"))
	text := ""
	switch {
	case len(ts) == 2 && op == "in":
		text = ts[0] + " in " + ts[1]
	case len(ts) == 2 && op == "[]":
		text = ts[0] + "[" + ts[1] + "]"
	case len(ts) == 2:
		text = ts[0] + " " + op + " " + ts[1]
	case len(ts) == 3:
		text = ts[0] + " ? " + ts[1] + " : " + ts[2]
	default:
		text = op + strings.Join(ts, ", ")
	}
	return "there is no " + text + advice(op, ts)
}

func advice(op string, ts []string) string {
	number := func(s string) bool { return s == "int" || s == "uint" || s == "double" }
	switch {
	case len(ts) == 2 && strings.Contains("+-*/%", op) && number(ts[0]) && number(ts[1]):
		if op == "%" {
			return "; % takes two int or two uint"
		}
		return "; both sides must be of one type: write 2.0 for 2, 2u for an unsigned 2, or double(x), int(x), uint(x)"
	case op == "&&" || op == "||" || op == "!":
		return "; " + op + " takes bool"
	case op == "?:" && len(ts) == 3 && ts[0] != "bool":
		return "; the condition must be bool"
	case op == "?:":
		return "; both branches must be of one type, or one null"
	case op == "in":
		return "; want a value in a list of its type"
	case op == "[]":
		return "; want list[int]"
	case op == "-" && len(ts) == 1:
		return "; - takes int, double or duration"
	}
	return "; both sides must be of types that go together"
}

// splitTypes parts "int, list(double)" at the commas outside of brackets.
func splitTypes(s string) []string {
	var out []string
	depth, at := 0, 0
	for i := range len(s) {
		switch s[i] {
		case '(':
			depth++
		case ')':
			depth--
		case ',':
			if depth == 0 {
				out, at = append(out, strings.TrimSpace(s[at:i])), i+1
			}
		}
	}
	return append(out, strings.TrimSpace(s[at:]))
}

// symbol is how an operator is written, "" for a function.
func symbol(name string) string {
	switch name {
	case "@in":
		return "in"
	case "_[_]":
		return "[]"
	case "_?_:_":
		return "?:"
	}
	if strings.Contains(name, "_") && !strings.ContainsAny(name, "abcdefghijklmnopqrstuvwxyz") {
		return strings.ReplaceAll(name, "_", "")
	}
	return ""
}
