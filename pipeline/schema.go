package pipeline

import (
	"encoding/json"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/codec"
)

// The patterns of names, as editors check them; schemas.CheckName, ParseTopicRef and ParseModelRef decide.
const (
	namePattern   = `^[a-z][a-z0-9-]{0,62}$`
	topicPattern  = `^(nats:)?[a-z][a-z0-9-]{0,62}(\.[a-z][a-z0-9-]{0,62})*$`
	modelPattern  = `^[a-z][a-z0-9-]{0,62}(@([1-9][0-9]*|[a-z][a-z0-9-]{0,62}))?$`
	kafkaPattern  = `^kafka:[A-Za-z0-9._-]{1,249}$`
	headerPattern = `^[A-Za-z0-9-]{1,64}$`
	// One number with a unit, or several: what time.ParseDuration takes, without a sign.
	durationPattern = `^([0-9]+(\.[0-9]*)?(ns|us|µs|ms|s|m|h))+$`
)

// JSONSchema returns the JSON Schema (draft 2020-12) of a spec, for editors: indented, ends with a newline, and the
// same bytes each time. It knows the shape and the patterns of names; Validate knows the rest.
func JSONSchema() []byte {
	b, err := json.MarshalIndent(schemaOfSpec(), "", "  ")
	if err != nil {
		panic("pipeline: JSON Schema: " + err.Error()) // maps of text and numbers always marshal
	}
	return append(b, '\n')
}

func schemaOfSpec() map[string]any {
	text := func(describe string) map[string]any { return map[string]any{"type": "string", "description": describe} }
	topic := func(describe string) map[string]any {
		return map[string]any{"type": "string", "description": describe, "anyOf": []any{
			map[string]any{"pattern": topicPattern, "maxLength": 200}, map[string]any{"pattern": kafkaPattern},
		}}
	}
	columns := func(describe string) map[string]any {
		return map[string]any{
			"type": "array", "uniqueItems": true, "maxItems": schemas.MaxColumns, "description": describe,
			"items": map[string]any{"type": "string", "minLength": 1},
		}
	}
	input := object("What is scored continuously: a topic, or a foreign stream without the claim of order.", nil, map[string]any{
		"topic":   topic("NAME, nats:NAME or kafka:NAME: a topic, read in order of each key."),
		"stream":  text("A JetStream stream that is not Leat's."),
		"subject": text("The subjects to read of that stream; > for all."),
		"format": map[string]any{
			"enum": codec.Formats, "default": codec.JSON,
			"description": "What records are written in that have no Content-Type. Avro and Protobuf: with the id of a schema registry's schema before them.",
		},
		"columns": columns("Of format csv: what the cells of a line are, in order; else those of the model."),
	})
	input["oneOf"] = []any{
		map[string]any{"required": []string{"topic"}, "not": map[string]any{"anyOf": []any{
			map[string]any{"required": []string{"stream"}}, map[string]any{"required": []string{"subject"}},
		}}},
		map[string]any{"required": []string{"stream", "subject"}, "not": map[string]any{"required": []string{"topic"}}},
	}
	s := object("A pipeline: what callers address, and the route that answers them.", []string{"apiVersion", "kind", "name", "route"}, map[string]any{
		"apiVersion":  map[string]any{"const": APIVersion},
		"kind":        map[string]any{"const": Kind},
		"name":        map[string]any{"type": "string", "pattern": namePattern, "description": "Callers address the pipeline by it."},
		"description": map[string]any{"type": "string", "maxLength": MaxDescription},
		"labels": map[string]any{
			"type": "object", "maxProperties": MaxLabels, "propertyNames": map[string]any{"minLength": 1, "maxLength": MaxLabel},
			"additionalProperties": map[string]any{"type": "string", "maxLength": MaxLabel},
		},
		"input": input,
		"output": object("Where the answers to the input go.", []string{"topic"}, map[string]any{
			"topic": topic("NAME, nats:NAME or kafka:NAME. Must not be the input's topic."),
		}),
		"delivery": map[string]any{
			"enum": []string{string(AtLeastOnce), string(ExactlyOnce)}, "default": string(AtLeastOnce),
			"description": "What follows from an event is seen at least once, repeats with the same ids; or exactly once, where input, output and lineage are on one Kafka.",
		},
		"lineage": map[string]any{
			"enum": []string{string(Strict), string(Async)}, "default": string(Strict),
			"description": "strict: no answer is seen before its record is acknowledged. async: answers do not wait.",
		},
		"deadline": map[string]any{
			"type": "string", "pattern": durationPattern, "default": "5s",
			"description": "For a request that brings none: 250ms, 2s; at most 1h.",
		},
		"record": object("Columns that are kept out of the lineage.", nil, map[string]any{
			"mask": columns("Columns of which a salted digest is kept."),
			"drop": columns("Columns that are left out."),
		}),
		"feedback": object("How feedback finds its decision. With it, be it empty, feedback is also taken from leat.feedback.NAME on Kafka.", nil, map[string]any{
			"entity": map[string]any{"type": "string", "description": "The column of requests that says about what the decision is: feedback may name its value and a time, in place of a request id."},
			"within": map[string]any{"type": "string", "pattern": durationPattern, "default": "24h", "description": "How long after a decision feedback on its entity may mean it; at most 8784h."},
		}),
		"columns": map[string]any{
			"type": "object", "maxProperties": maxDeclared, "propertyNames": map[string]any{"minLength": 1},
			"additionalProperties": map[string]any{"enum": schemas.DTypes()},
			"description":          "Columns of requests that no model of the route reads, with their types: keys, conditions and shadows read them.",
		},
		"route":   map[string]any{"$ref": "#/$defs/node"},
		"shadows": schemaOfShadows(),
	})
	s["dependentRequired"] = map[string]any{"output": []string{"input"}}
	s["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	s["title"] = "Leat pipeline (" + APIVersion + ")"
	node := object("A node of the route: exactly one kind key.", nil, nil)
	delete(node, "properties")
	delete(node, "additionalProperties")
	node["$ref"], node["unevaluatedProperties"] = "#/$defs/kinds", false
	s["$defs"] = map[string]any{"kinds": schemaOfKinds(), "node": node}
	return s
}

// schemaOfKinds asks for exactly one of the kinds.
func schemaOfKinds() map[string]any {
	kinds := map[string]any{}
	var one []any
	for i := range nodeKinds {
		kinds[nodeKinds[i].key] = nodeKinds[i].schema
		one = append(one, map[string]any{"required": []string{nodeKinds[i].key}})
	}
	return map[string]any{"properties": kinds, "oneOf": one}
}

func object(describe string, required []string, properties map[string]any) map[string]any {
	o := map[string]any{"type": "object", "additionalProperties": false, "description": describe, "properties": properties}
	if len(required) > 0 {
		o["required"] = required
	}
	return o
}
