package nats

import (
	"encoding/base64"
	"hash/fnv"
	"strconv"
	"strings"

	"github.com/cespare/xxhash/v2"

	"github.com/leatstream/leat/schemas"
)

// Subjects that users see. Each ends with a dot.
const (
	subjectScore    = "leat.score."
	subjectFan      = "leat.fan." // in LEAT alone
	subjectTopic    = "leat.topic."
	subjectFeedback = "leat.feedback."
	subjectAPI      = "leat.api."
	subjectDead     = "leat.dead."
	subjectQueue    = "leat.queue."
	subjectDoor     = "leat.js." // in APP: where $JS.API.> of users is mapped to
)

// Streams that this package makes by itself.
const (
	streamTopic = "LEAT_T_"
	streamQueue = "LEAT_Q_"
	streamDead  = "LEAT_DEAD"
)

// topicStream returns the stream of a topic. Names hold no '_', so two topics never share one.
func topicStream(topic string) string { return streamTopic + strings.ReplaceAll(topic, ".", "_") }

// topicOfStream is the inverse of topicStream.
func topicOfStream(stream string) (string, bool) {
	t, ok := strings.CutPrefix(stream, streamTopic)
	return strings.ReplaceAll(t, "_", "."), ok
}

func partitionSubject(topic string, p int) string {
	return subjectTopic + topic + "." + strconv.Itoa(p)
}

// partitionOf is where a key's messages go (SEMANTICS 3).
func partitionOf(key string, partitions int) int {
	return int(xxhash.Sum64String(key) % uint64(partitions))
}

// keyName turns any key into one that NATS takes: as it is if it holds only letters, digits, '_', '-', '/' and inner
// dots, else '=' and its base64url (SEMANTICS 1).
func keyName(key string) string {
	if plainKey(key) {
		return key
	}
	return "=" + base64.RawURLEncoding.EncodeToString([]byte(key))
}

// keyOfName is the inverse of keyName.
func keyOfName(name string) string {
	if !strings.HasPrefix(name, "=") {
		return name
	}
	b, err := base64.RawURLEncoding.DecodeString(name[1:])
	if err != nil {
		return name
	}
	return string(b)
}

func plainKey(k string) bool {
	if k == "" || k[0] == '.' || k[len(k)-1] == '.' || strings.Contains(k, "..") {
		return false
	}
	for i := 0; i < len(k); i++ {
		c := k[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-' || c == '/' || c == '.') {
			return false
		}
	}
	return true
}

// checkToken refuses what would be more than one token of a subject.
func checkToken(op, what, s string) error {
	if s == "" || strings.ContainsAny(s, " \t\r\n*>.") {
		return schemas.Errorf(schemas.Invalid, op, "%s name %q: want one word without dots, spaces or wildcards", what, s)
	}
	return nil
}

// checkSubject refuses wildcards, empty tokens and spaces.
func checkSubject(op, s string) error {
	if s == "" || s[0] == '.' || s[len(s)-1] == '.' || strings.Contains(s, "..") || strings.ContainsAny(s, " \t\r\n*>") {
		return schemas.Errorf(schemas.Invalid, op, "subject %q: want words joined with dots, without spaces or wildcards", s)
	}
	return nil
}

// shortHash makes a name of bounded length distinct.
func shortHash(s string) string {
	h := fnv.New64a()
	h.Write([]byte(s))
	return strconv.FormatUint(h.Sum64(), 36)
}
