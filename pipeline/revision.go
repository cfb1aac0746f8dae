package pipeline

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"strings"

	"github.com/leatstream/leat/schemas/document"
)

// SpecDigest is hex SHA-256 of the RFC 8785 JSON of the spec with defaults filled in (SEMANTICS 1).
func SpecDigest(s Spec) (string, error) {
	b, err := document.Canonical(s.Defaulted())
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:]), nil
}

// RevisionOf is hex SHA-256 over the spec digest and, sorted by node path, each node path and model digest. Each part
// is text as written in Revision, preceded by its length (u32 little-endian), so that no two lists look alike.
func RevisionOf(specDigest string, models []ResolvedModel) string {
	sorted := slices.SortedFunc(slices.Values(models), func(a, b ResolvedModel) int { return strings.Compare(a.Node, b.Node) })
	b := appendPart(nil, specDigest)
	for _, m := range sorted {
		b = appendPart(appendPart(b, m.Node), m.Digest)
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func appendPart(b []byte, s string) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(len(s)))
	return append(b, s...)
}
