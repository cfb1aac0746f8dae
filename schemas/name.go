package schemas

import (
	"strconv"
	"strings"
)

// MaxName is the longest name of a model, pipeline, node or alias, in bytes.
const MaxName = 63

// CheckName returns an Invalid error unless s matches [a-z][a-z0-9-]{0,62}: the pattern of models, pipelines, nodes
// and aliases. what names the thing in the error ("model").
func CheckName(what, s string) error {
	ok := len(s) > 0 && len(s) <= MaxName && s[0] >= 'a' && s[0] <= 'z'
	for i := 0; ok && i < len(s); i++ {
		c := s[i]
		ok = c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-'
	}
	if !ok {
		return Errorf(Invalid, "schemas.CheckName", "%s name %q: want a lower-case letter, then up to 62 of a-z, 0-9 and '-'", what, clip(s))
	}
	return nil
}

// CheckTopic returns an Invalid error unless s is names joined with dots, at most 200 bytes.
func CheckTopic(s string) error {
	if len(s) > 200 {
		return Errorf(Invalid, "schemas.CheckTopic", "topic name of %d bytes: at most 200", len(s))
	}
	for part := range strings.SplitSeq(s, ".") {
		if CheckName("topic", part) != nil {
			return Errorf(Invalid, "schemas.CheckTopic", "topic name %q: want names of a-z, 0-9 and '-' that start with a letter, joined with dots", clip(s))
		}
	}
	return nil
}

// The transports that a topic reference may name.
const (
	TransportNATS  = "nats"
	TransportKafka = "kafka"
)

// TopicRef is a topic as users name it in pipelines, jobs and commands: NAME, on the server's usual transport, or
// nats:NAME or kafka:NAME.
type TopicRef struct {
	Transport string // "": the server's usual one
	Name      string
}

// ParseTopicRef reads a reference. A name after kafka: may be any that Kafka allows, since topics of others are read and
// written too; every other name is as CheckTopic wants it.
func ParseTopicRef(s string) (TopicRef, error) {
	scheme, name, ok := strings.Cut(s, ":")
	switch {
	case !ok:
		return TopicRef{Name: s}, CheckTopic(s)
	case scheme == TransportNATS:
		return TopicRef{scheme, name}, CheckTopic(name)
	case scheme == TransportKafka:
		return TopicRef{scheme, name}, CheckKafkaTopic(name)
	}
	return TopicRef{}, Errorf(Invalid, "schemas.ParseTopicRef", "topic %q: want NAME, nats:NAME or kafka:NAME", clip(s))
}

// CheckKafkaTopic returns an Invalid error unless Kafka takes s as a topic's name: [A-Za-z0-9._-]{1,249}, not . or ..
func CheckKafkaTopic(s string) error {
	ok := len(s) > 0 && len(s) <= 249 && s != "." && s != ".."
	for i := 0; ok && i < len(s); i++ {
		c := s[i]
		ok = c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '.' || c == '_' || c == '-'
	}
	if !ok {
		return Errorf(Invalid, "schemas.CheckKafkaTopic", "Kafka topic %q: want 1 to 249 of letters, digits, '.', '_' and '-'", clip(s))
	}
	return nil
}

// CheckBucket returns an Invalid error unless s may be the name of a NATS KV bucket of features: 1 to 64 letters, digits, '-'
// and '_', the first of them a letter or a digit. Names that begin with LEAT_ are Leat's own.
func CheckBucket(s string) error {
	ok := len(s) > 0 && len(s) <= 64 && s[0] != '-' && s[0] != '_' && !strings.HasPrefix(s, "LEAT_")
	for i := 0; ok && i < len(s); i++ {
		c := s[i]
		ok = c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-'
	}
	if !ok {
		return Errorf(Invalid, "schemas.CheckBucket", "bucket name %q: want 1 to 64 of letters, digits, '-' and '_', and not LEAT_ at the beginning", clip(s))
	}
	return nil
}

// ModelRef names a version of a model, as callers write it: "fraud@3", "fraud@champion"; "fraud" means "@champion".
type ModelRef struct {
	Name    string
	Version int    // 0: by alias
	Alias   string // "" when Version is set
}

// Champion is the alias that a bare model name means.
const Champion = "champion"

// ParseModelRef reads NAME, NAME@VERSION or NAME@ALIAS. An alias is never all digits.
func ParseModelRef(s string) (ModelRef, error) {
	name, at, has := strings.Cut(s, "@")
	if err := CheckName("model", name); err != nil {
		return ModelRef{}, err
	}
	if !has {
		return ModelRef{Name: name, Alias: Champion}, nil
	}
	if n, err := strconv.Atoi(at); err == nil {
		if n < 1 || strconv.Itoa(n) != at {
			return ModelRef{}, Errorf(Invalid, "schemas.ParseModelRef", "model %q: versions count from 1", clip(s))
		}
		return ModelRef{Name: name, Version: n}, nil
	}
	if err := CheckName("alias", at); err != nil {
		return ModelRef{}, err
	}
	return ModelRef{Name: name, Alias: at}, nil
}

// String writes the reference in full.
func (r ModelRef) String() string {
	if r.Version > 0 {
		return r.Name + "@" + strconv.Itoa(r.Version)
	}
	return r.Name + "@" + r.Alias
}

// clip keeps hostile names out of logs and error lines at full length.
func clip(s string) string {
	if len(s) > 80 {
		return s[:77] + "..."
	}
	return s
}
