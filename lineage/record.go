package lineage

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"time"

	"github.com/leatstream/leat/schemas"
)

// Status of a row.
const (
	StatusOK    = "ok"
	StatusError = "error"
	// StatusLate: the node came back when the request had been answered without it, with an answer or with an error. The
	// record that says so when the request was answered, an error of kind expired, lies before it.
	StatusLate = "late"
)

// Roles that a node's row can have.
const (
	RolePrimary = "primary"
	RoleShadow  = "shadow"
	RoleMember  = "member"
	RoleStage   = "stage"
	RoleArm     = "arm"
	// RoleCombiner is the model that takes the answers of an ensemble's members.
	RoleCombiner = "combiner"
)

// Context is what many rows share. It is written once for each message of the stream, not for each row. A Context that
// was handed to Records is not changed any more.
type Context struct {
	Principal string // who asked; "" for an open loopback caller
	Via       string // "nats", "http", "topic", "job", "kafka", "grpc", "file"
	Pipeline  string
	Revision  string
	Node      string // node path
	Role      string
	Arm       string
	Model     string
	Version   int
	Digest    string // of the model's artifact
	Run       string // job id, "" for none
	Runtime   string // "onnxruntime 1.27.0"
	CPU       string // features that decide bits: "avx512f,fma"

	Policy *Policy // what of the pipeline's columns stays out of the record; nil: nothing. Readers leave it nil
}

// Row is what belongs to one row.
type Row struct {
	RequestID   string
	Row         int32
	Attempt     int32
	TraceID     string
	ParentID    string
	From        schemas.Position // of the input; zero for a core request
	InputDigest [32]byte         // see InputDigest
	Status      string
	ErrorKind   string // "" when ok
	ErrorID     string
	Error       string // one line, without internals
	Propensity  float64
	Seed        uint64
	State       uint64 // of a bandit: position in this log of the last feedback that it knew; 0: of none
	BatchSize   int32
	BatchRow    int32
	Queue       time.Duration
	Score       time.Duration
	EventTime   time.Time // zero if the caller gave none
	Received    time.Time
	Scored      time.Time
}

// Record is one lineage row as readers see it. Input and Output are lent until the reader's callback returns.
type Record struct {
	Context
	Row
	RecordID  [32]byte
	InSchema  schemas.SchemaID
	OutSchema schemas.SchemaID
	Salt      [16]byte       // of the salted digests
	Masked    []string       // columns or features whose values are digests in Input and Output
	Dropped   []string       // columns or features that are only in the digest under DroppedColumn
	Input     *schemas.Batch // nil: at the parent
	InputRow  int
	Output    *schemas.Batch // nil: no output (an error)
	OutputRow int
	Position  schemas.Position // stream position; Partition 0
	Index     int              // in the stream's message
	Appended  time.Time
	IDReused  bool // the same request_key came with another input digest before (Get: or after)
	// Superseded: a record of the same id lies at a lower position. Readers drop such records unless Query.All.
	Superseded bool
	Feedback   []*Feedback // with Query.Join: what was said of it, in the order of the log; see OutcomeOf
}

// RequestKey is SHA-256(principal, pipeline, request_id), each part preceded by its length (u32 little-endian).
func RequestKey(principal, pipeline, requestID string) [32]byte {
	var buf [256]byte
	b := appendPart(buf[:0], principal)
	b = appendPart(b, pipeline)
	b = appendPart(b, requestID)
	return sha256.Sum256(b)
}

// RecordID is SHA-256(request_key, input digest, row u32, node path, run).
func RecordID(requestKey, inputDigest [32]byte, row int32, node, run string) [32]byte {
	var buf [256]byte
	b := append(buf[:0], requestKey[:]...)
	b = append(b, inputDigest[:]...)
	b = binary.LittleEndian.AppendUint32(b, uint32(row))
	b = appendPart(b, node)
	b = appendPart(b, run)
	return sha256.Sum256(b)
}

func appendPart(b []byte, s string) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(len(s)))
	return append(b, s...)
}

// PositionID names a durable message that came without a request id: hex of the first 16 bytes of SHA-256 of its
// position (SEMANTICS 1).
func PositionID(p schemas.Position) string {
	sum := sha256.Sum256([]byte(p.String()))
	return hex.EncodeToString(sum[:16])
}
