package pipeline

import (
	"cmp"
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/codec"
	"github.com/leatstream/leat/schemas/document"
	"github.com/leatstream/leat/scorers"
)

// Bounds on a spec, beside those of package document.
const (
	MaxDeadline    = Duration(time.Hour)
	MaxLabels      = 64
	MaxLabel       = 256 // bytes of a label's name or value
	MaxDescription = 4096
	MaxSpecs       = 256 // pipelines in one file
)

// weight matches the path of an arm's weight.
var weight = regexp.MustCompile(`split\.arms\[[0-9]+\]\.weight$`)

// ParseSpec reads the pipelines of a YAML or JSON text, several documents allowed, and validates each. All that is
// wrong comes in one Invalid error, a document.Faults, with paths, lines and what would be right. Defaults are not
// filled in: see Defaulted.
func ParseSpec(b []byte) ([]Spec, error) {
	const op = "pipeline.ParseSpec"
	docs, err := document.Parse(b)
	if err != nil {
		return nil, err
	}
	if len(docs) == 0 {
		return nil, schemas.Errorf(schemas.Invalid, op, "no pipeline in it; a pipeline starts with apiVersion: %s, kind: %s", APIVersion, Kind)
	}
	if len(docs) > MaxSpecs {
		return nil, schemas.Errorf(schemas.Invalid, op, "%d pipelines in one text: at most %d", len(docs), MaxSpecs)
	}
	var faults document.Faults
	specs := make([]Spec, len(docs))
	lines := map[string]int{}
	for i, v := range docs {
		s := &specs[i]
		fs := document.Decode(v, s)
		for i := range fs {
			if weight.MatchString(fs[i].Path) && strings.HasPrefix(fs[i].Text, "want a whole number") {
				fs[i].Text += "; weights are percent or, of all arms, parts per 10,000: 9950 and 50 for 99.5 and 0.5 %"
			}
		}
		s.text = v
		faults = append(faults, fs...)
		faults = append(faults, without(s.faults(), fs)...)
		if at := lines[s.Name]; at > 0 && s.Name != "" {
			faults = append(faults, document.Fault{Path: "name", Line: v.LineOf("name"), Text: fmt.Sprintf("pipeline %q is here already, at line %d", s.Name, at)})
		}
		lines[s.Name] = v.LineOf("name")
	}
	if len(faults) > 0 {
		return nil, faults.Err(op)
	}
	return specs, nil
}

// within reports whether a path leads below another.
func within(path, of string) bool {
	rest, below := strings.CutPrefix(path, of)
	return below && of != "" && rest != "" && (rest[0] == '.' || rest[0] == '[')
}

// without drops what follows from a fault that is told already: the contents of a field that could not be read, as a
// whole or a part of it.
func without(fs, told document.Faults) document.Faults {
	return slices.DeleteFunc(fs, func(f document.Fault) bool {
		return slices.ContainsFunc(told, func(t document.Fault) bool {
			return f.Path != "" && (t.Path == f.Path || within(t.Path, f.Path) || within(f.Path, t.Path))
		})
	})
}

// Validate reports every fault of the spec as one Invalid error (document.Faults), as far as it can be told without
// knowing the models: see Resolve.
func (s *Spec) Validate() error { return s.faults().Err("pipeline.Spec.Validate") }

// checker collects faults of one spec.
type checker struct {
	text   *document.Value
	faults document.Faults
}

func (c *checker) fault(path, format string, args ...any) {
	c.faults = append(c.faults, document.Fault{Path: path, Line: c.text.LineOf(path), Text: fmt.Sprintf(format, args...)})
}

func (c *checker) err(path string, err error) {
	if err != nil {
		c.fault(path, "%v", err)
	}
}

func (s *Spec) faults() document.Faults {
	c := &checker{text: s.text}
	switch {
	case s.APIVersion == "":
		c.fault("apiVersion", "missing; write apiVersion: %s", APIVersion)
	case s.APIVersion != APIVersion:
		c.fault("apiVersion", "%.80q is not known to this version of leat; want %s", s.APIVersion, APIVersion)
	}
	switch {
	case s.Kind == "":
		c.fault("kind", "missing; write kind: %s", Kind)
	case s.Kind != Kind:
		c.fault("kind", "unknown kind %.80q%s", s.Kind, document.Meant(s.Kind, []string{Kind}))
	}
	if s.Name == "" {
		c.fault("name", "missing; callers address the pipeline by it")
	} else {
		c.err("name", schemas.CheckName("pipeline", s.Name))
	}
	if len(s.Description) > MaxDescription {
		c.fault("description", "%d bytes: at most %d", len(s.Description), MaxDescription)
	}
	c.labels(s.Labels)
	if modes := []string{string(Strict), string(Async)}; s.Lineage != "" && !slices.Contains(modes, string(s.Lineage)) {
		c.fault("lineage", "unknown mode %.80q%s", s.Lineage, document.Meant(string(s.Lineage), modes))
	}
	if s.Deadline < 0 || s.Deadline > MaxDeadline {
		c.fault("deadline", "%v: want more than 0 and at most %v", time.Duration(s.Deadline), time.Duration(MaxDeadline))
	}
	c.topics(s)
	c.delivery(s)
	c.record(s.Record)
	c.feedback(s)
	c.declared(s.Columns)
	c.node(&s.Route, RootPath, 1)
	c.shadows(s)
	return c.faults
}

func (c *checker) labels(labels map[string]string) {
	if len(labels) > MaxLabels {
		c.fault("labels", "%d labels: at most %d", len(labels), MaxLabels)
	}
	for _, k := range sortedKeys(labels) {
		if k == "" || len(k) > MaxLabel || len(labels[k]) > MaxLabel {
			c.fault(fmt.Sprintf("labels.%.80s", k), "a label's name takes 1 to %d bytes, its value up to %d", MaxLabel, MaxLabel)
		}
	}
}

func (c *checker) topics(s *Spec) {
	if in := s.Input; in != nil {
		switch {
		case in.Topic == "" && in.Stream == "" && in.Subject == "":
			c.fault("input", "empty; name a topic, or a foreign stream and its subject")
		case in.Topic != "" && in.Stream+in.Subject != "":
			c.fault("input", "both a topic and a foreign stream; keep one of them")
		case in.Topic != "":
			c.topic("input.topic", in.Topic)
		case in.Stream == "":
			c.fault("input.stream", "missing; a subject is read from a stream")
		case in.Subject == "":
			c.fault("input.subject", "missing; write > for all subjects of the stream")
		default:
			c.foreign(in)
		}
		c.format(in)
	}
	out := s.Output
	if out == nil {
		return
	}
	if out.Topic == "" {
		c.fault("output.topic", "missing; name the topic of the answers, or leave output out")
		return
	}
	c.topic("output.topic", out.Topic)
	switch {
	case s.Input == nil:
		c.fault("output", "no input to answer; requests are answered to their caller, so output needs input")
	case s.Input.Topic == out.Topic:
		c.circle(out.Topic)
	}
}

func (c *checker) topic(path, ref string) {
	r, err := schemas.ParseTopicRef(ref)
	if err == nil {
		err = checkReserved(r)
	}
	c.err(path, err)
}

// format checks how the input's records are written.
func (c *checker) format(in *Input) {
	if _, err := codec.ParseInput(in.Format, in.Columns); err != nil {
		e := schemas.AsError("", err)
		c.fault(cmp.Or(e.Field, "input.format"), "%v", e.Err)
	}
}

func (c *checker) circle(topic string) {
	c.fault("output.topic", "%q is the input's topic too: its answers would be scored again, for ever; choose another", topic)
}

// delivery checks what exactly once needs, as far as the spec tells: see server.
func (c *checker) delivery(s *Spec) {
	known := []string{string(AtLeastOnce), string(ExactlyOnce)}
	if s.Delivery != "" && !slices.Contains(known, string(s.Delivery)) {
		c.fault("delivery", "unknown guarantee %.80q%s", s.Delivery, document.Meant(string(s.Delivery), known))
	}
	if s.Delivery != ExactlyOnce {
		return
	}
	switch in := s.Input; {
	case in == nil:
		c.fault("delivery", "%s is about a topic's events; it needs input: {topic: kafka:NAME}", ExactlyOnce)
	case in.Stream+in.Subject != "":
		c.fault("input", "a foreign stream lies on NATS; delivery: %s needs input: {topic: kafka:NAME}", ExactlyOnce)
	case in.Topic != "":
		c.onKafka("input.topic", in.Topic, "")
	}
	if s.Output != nil && s.Output.Topic != "" {
		c.onKafka("output.topic", s.Output.Topic, "")
	}
	if s.Lineage == Async {
		c.fault("lineage", "%s: delivery: %s needs %s, since the records are part of its transactions", Async, ExactlyOnce, Strict)
	}
}

// onKafka checks that a topic of a pipeline that is exactly once lives on Kafka. usual is where one without a transport
// lives, "" if that is not known.
func (c *checker) onKafka(path, ref, usual string) {
	if r, err := schemas.ParseTopicRef(ref); err == nil && cmp.Or(r.Transport, usual) == schemas.TransportNATS {
		c.fault(path, "%.80q lives on NATS; delivery: %s needs it on Kafka: write kafka:%.80s", ref, ExactlyOnce, r.Name)
	}
}

// server checks a valid spec against what the server that shall run it has.
func (c *checker) server(s *Spec, f Facts) {
	var in, out string
	if s.Input != nil {
		in = s.Input.Topic
	}
	if s.Output != nil {
		out = s.Output.Topic
	}
	for _, t := range [...]struct{ path, ref string }{{"input.topic", in}, {"output.topic", out}} {
		if t.ref == "" {
			continue
		}
		r := f.Topic(t.ref)
		if r.Transport == schemas.TransportKafka && !f.Kafka {
			c.fault(t.path, "%.80q: this server knows no Kafka: start it with --kafka HOST:PORT, or set kafka.bootstrap", t.ref)
			continue
		}
		c.err(t.path, checkReserved(r))
		if s.Delivery == ExactlyOnce {
			c.onKafka(t.path, t.ref, r.Transport)
		}
	}
	s.Walk(func(_, at string, n *Node) {
		if n.Lookup != nil && n.Lookup.Topic != "" {
			c.lookupTopic(document.Join(at, "lookup.topic"), n.Lookup.Topic, f)
		}
	})
	if s.Input != nil && !f.Registry && (s.Input.Format == codec.Avro || s.Input.Format == codec.Protobuf) {
		c.fault("input.format", "%s needs a schema registry: set schema_registry.url for the server", s.Input.Format)
	}
	if s.Delivery == ExactlyOnce && f.Lineage != schemas.TransportKafka {
		c.fault("delivery", "%s needs the lineage on Kafka, where the topics are: set lineage.transport: kafka for the server, or write delivery: %s", ExactlyOnce, AtLeastOnce)
	}
	if in != "" && out != "" && f.Topic(in) == f.Topic(out) {
		c.circle(out)
	}
}

// foreign checks the names of a stream that is not ours: what NATS takes, and nothing that could reach our own.
func (c *checker) foreign(in *Input) {
	if len(in.Stream) > 128 || strings.ContainsAny(in.Stream, " .*>/\\\t\r\n\x00") {
		c.fault("input.stream", "%.80q is not a stream name: no spaces, dots, wildcards or slashes", in.Stream)
	} else if strings.HasPrefix(in.Stream, "LEAT_") || strings.HasPrefix(in.Stream, "KV_") || strings.HasPrefix(in.Stream, "OBJ_") {
		c.fault("input.stream", "%q is internal; to read a topic write input: {topic: NAME}", in.Stream)
	}
	bad := len(in.Subject) > 255 || strings.ContainsAny(in.Subject, " \t\r\n\x00")
	tokens := strings.Split(in.Subject, ".")
	for i, t := range tokens {
		bad = bad || t == "" || len(t) > 1 && strings.ContainsAny(t, "*>") || t == ">" && i < len(tokens)-1
	}
	if bad {
		c.fault("input.subject", "%.80q is not a subject: want tokens joined with dots, * for one token, > at the end for the rest", in.Subject)
	}
}

func (c *checker) record(r *Record) {
	if r == nil {
		return
	}
	where := map[string]string{}
	for _, l := range []struct {
		key  string
		cols []string
	}{{"record.mask", r.Mask}, {"record.drop", r.Drop}} {
		if len(l.cols) > schemas.MaxColumns {
			c.fault(l.key, "%d columns: at most %d", len(l.cols), schemas.MaxColumns)
			continue
		}
		for i, col := range l.cols {
			at := document.Index(l.key, i)
			switch {
			case col == "":
				c.fault(at, "empty; name a column")
			case where[col] != "":
				c.fault(at, "%.80q is at %s already", col, where[col])
			default:
				where[col] = at
			}
		}
	}
}

// declared checks the columns that only the route reads.
func (c *checker) declared(cols map[string]string) {
	if len(cols) > maxDeclared {
		c.fault("columns", "%d columns: at most %d", len(cols), maxDeclared)
		return
	}
	for _, name := range sortedKeys(cols) {
		if name == "" || len(name) > schemas.MaxColumnName {
			c.fault("columns", "column %.80q: a name has 1 to %d bytes", name, schemas.MaxColumnName)
			continue
		}
		if _, err := schemas.ParseDType(cols[name]); err != nil {
			c.fault(document.Join("columns", name), "%v%s", err, document.Meant(cols[name], schemas.DTypes()))
		}
	}
}

const maxDeclared = 256

// node checks that exactly one kind is set, then that kind, then what is below.
func (c *checker) node(n *Node, at string, depth int) {
	var set []string
	for i := range nodeKinds {
		if nodeKinds[i].used(n) {
			set = append(set, nodeKinds[i].key)
		}
	}
	switch {
	case len(set) == 0:
		c.fault(at, "names nothing to run; want one of %s", strings.Join(kindKeys(), ", "))
		return
	case len(set) > 1:
		c.fault(at, "has %s; a node has exactly one of %s", strings.Join(set, " and "), strings.Join(kindKeys(), ", "))
		return
	case depth > maxDepth:
		c.fault(at, "nodes nested deeper than %d; nest fewer", maxDepth)
		return
	}
	for i := range nodeKinds {
		if nodeKinds[i].used(n) {
			nodeKinds[i].check(n, at, c)
		}
	}
	below := n.below()
	if len(below) > maxChildren {
		list, _, _ := strings.Cut(below[0].at, "[")
		c.fault(document.Join(at, list), "%d nodes: at most %d", len(below), maxChildren)
		return
	}
	seen := map[string]string{}
	for _, ch := range below {
		at := document.Join(at, ch.at)
		if first, twice := seen[ch.name]; twice && ch.name != "" {
			blamed, other := at, first
			if !strings.HasSuffix(at, "]") { // its name is not for the user to choose
				blamed, other = first, at
			}
			c.fault(document.Join(blamed, "name"), "%q is the name of %s too; siblings have names of their own", ch.name, other)
		}
		seen[ch.name] = at
		if ch.name == "" {
			c.fault(document.Join(at, "name"), "missing; it names the node in records and metrics")
		} else {
			c.err(document.Join(at, "name"), schemas.CheckName("node", ch.name))
		}
		c.node(ch.node, at, depth+1)
	}
}

// Resolver says what a model reference means now. It is called by one goroutine.
type Resolver interface {
	// Resolve returns the version; NotFound if there is no such model, version or alias.
	Resolve(ctx context.Context, ref schemas.ModelRef) (scorers.Version, error)
	// Known returns references that exist, for a "did you mean": names, and NAME@ALIAS and NAME@VERSION of name.
	Known(ctx context.Context, name string) ([]string, error)
}
