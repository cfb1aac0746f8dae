package gateway

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/leatstream/leat/schemas"
)

// buffer is a body's memory, used again.
type buffer struct{ b []byte }

var buffers = sync.Pool{New: func() any { return &buffer{make([]byte, 0, 4<<10)} }}

func takeBuffer() *buffer { return buffers.Get().(*buffer) }

// keepBuffer bounds what a pooled buffer may hold on to.
const keepBuffer = 1 << 20

func (b *buffer) give() {
	if cap(b.b) <= keepBuffer {
		b.b = b.b[:0]
		buffers.Put(b)
	}
}

// body reads the request's body into b, at most Config.MaxBody bytes, also once decompressed.
func (s *Server) body(r *http.Request, b []byte) ([]byte, error) {
	limit := s.config.MaxBody
	if r.ContentLength > limit {
		return b, tooLarge(strconv.FormatInt(r.ContentLength, 10), limit)
	}
	b, err := readAll(r.Body, b, limit)
	if m := s.deps.Counters; m != nil {
		m.bytes.Add(float64(len(b)))
	}
	if err != nil {
		return b, err
	}
	v := r.Header["Content-Encoding"]
	if len(v) == 0 || v[0] == "" || strings.EqualFold(v[0], "identity") {
		return b, nil
	}
	return decompress(v, b, limit)
}

func tooLarge(size string, limit int64) error {
	return &schemas.Error{Op: "gateway.body", Kind: schemas.Invalid, Err: &sizeError{"body of " + size + " bytes: at most " + strconv.FormatInt(limit, 10) + " are taken; send fewer rows a request, or use a job"}}
}

// sizeError is errTooLarge with its numbers.
type sizeError struct{ text string }

func (e *sizeError) Error() string   { return e.text }
func (e *sizeError) Is(t error) bool { return t == errTooLarge }

// readAll reads to the end, growing as bytes arrive: what a Content-Length promises is not believed before it came.
func readAll(r io.Reader, b []byte, limit int64) ([]byte, error) {
	for {
		if len(b) == cap(b) {
			b = append(b, 0)[:len(b)]
		}
		n, err := r.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		if int64(len(b)) > limit {
			return b, tooLarge("more than "+strconv.FormatInt(limit, 10), limit)
		}
		if err == io.EOF {
			return b, nil
		}
		if err != nil {
			return b, schemas.Errorf(schemas.Invalid, "gateway.body", "the body ended early: %w", err)
		}
	}
}

// decompress unpacks gzip or deflate into fresh memory. The limit holds for what comes out, so a small body that
// unpacks to gigabytes costs no more than one at the limit.
func decompress(encodings []string, b []byte, limit int64) ([]byte, error) {
	const op = "gateway.body"
	bad := func(format string, args ...any) error {
		return schemas.FieldErrorf(schemas.Invalid, op, "Content-Encoding", format, args...)
	}
	var r io.ReadCloser
	var err error
	switch name := strings.ToLower(strings.TrimSpace(encodings[0])); {
	case len(encodings) > 1 || strings.Contains(name, ","):
		return b, bad("one encoding is taken, gzip or deflate")
	case name == "gzip" || name == "x-gzip":
		r, err = gzip.NewReader(bytes.NewReader(b))
	case name == "deflate" && zlibHeader(b):
		r, err = zlib.NewReader(bytes.NewReader(b))
	case name == "deflate": // without zlib's header, as some clients send it
		r = flate.NewReader(bytes.NewReader(b))
	default:
		return b, bad("%.40q: want gzip, deflate or none", name)
	}
	if err == nil {
		defer r.Close()
		var out []byte
		if out, err = readAll(r, make([]byte, 0, min(4*len(b)+512, 1<<20)), limit); err == nil {
			return out, nil
		}
	}
	if errors.Is(err, errTooLarge) {
		return b, err
	}
	return b, bad("the body is not whole %s", encodings[0])
}

// zlibHeader knows RFC 1950's two bytes.
func zlibHeader(b []byte) bool {
	return len(b) >= 2 && b[0]&0x0f == 8 && (int(b[0])<<8|int(b[1]))%31 == 0
}

// minCompress is the smallest answer that is worth compressing: one packet carries less anyway.
const minCompress = 1400

// chooseEncoding picks gzip, else deflate, where the caller takes it.
func chooseEncoding(accept []string, size int) string {
	if len(accept) == 0 || size < minCompress {
		return ""
	}
	found := ""
	for _, v := range accept {
		for part := range strings.SplitSeq(v, ",") {
			name, params, _ := strings.Cut(part, ";")
			if q := strings.ReplaceAll(params, " ", ""); strings.HasPrefix(q, "q=0") && strings.Trim(q[2:], "0.") == "" {
				continue
			}
			switch strings.ToLower(strings.TrimSpace(name)) {
			case "gzip":
				return "gzip"
			case "deflate":
				found = "deflate"
			}
		}
	}
	return found
}

var (
	gzips = sync.Pool{New: func() any { w, _ := gzip.NewWriterLevel(nil, gzip.BestSpeed); return w }}
	zlibs = sync.Pool{New: func() any { w, _ := zlib.NewWriterLevel(nil, zlib.BestSpeed); return w }}
)

// compress packs b. The caller gives the buffer back when the bytes are written.
func compress(encoding string, b []byte) (*buffer, []byte) {
	pool := &gzips
	if encoding == "deflate" {
		pool = &zlibs
	}
	w := pool.Get().(interface {
		io.WriteCloser
		Reset(io.Writer)
	})
	defer pool.Put(w)
	out := takeBuffer()
	dst := bytes.NewBuffer(out.b)
	w.Reset(dst)
	_, _ = w.Write(b) // to memory: cannot fail
	_ = w.Close()
	out.b = dst.Bytes()
	return out, out.b
}
