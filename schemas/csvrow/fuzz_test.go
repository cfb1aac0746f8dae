package csvrow

import (
	"bytes"
	"encoding/csv"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/jsonrow"
	"github.com/leatstream/leat/schemas/schemastest"
)

var words = schemas.MustSchema(schemas.Field{Name: "a", Type: schemas.Binary}, schemas.Field{Name: "b", Type: schemas.String}, schemas.Field{Name: "c", Type: schemas.String})

// FuzzLines reads anything as rows of several schemas: nothing panics, a failure leaves the batch as it was, and where
// the standard library reads the same bytes as CSV, the cells are the same.
func FuzzLines(f *testing.F) {
	for _, s := range []string{"1.5,180,UA,N1\n", "\"a\"\"b\",\"\",,\r\n\"\n\"", "1,2,3,4,5,6\n,,,,,\n", "NaN,-1,\"x\ny\",", "\"", "a\"", "\"a\"b", ",,,,\n\n\r\n\r"} {
		f.Add([]byte(s))
	}
	all := schemas.NewBatch(flight)
	schemastest.Fill(all, rand.New(rand.NewPCG(1, 1)), 4)
	f.Add(encode(f, all))
	every := schemastest.Everything()
	f.Fuzz(func(t *testing.T, payload []byte) {
		for _, c := range []struct {
			s       *schemas.Schema
			columns []string
		}{{flight, nil}, {flight, []string{"carrier", "", "seats", "delay"}}, {words, nil}, {every, nil}} {
			check(t, codec(t, c.columns...), c.s, payload)
		}
		against(t, payload)
	})
}

func check(t *testing.T, c *Codec, s *schemas.Schema, payload []byte) {
	dst, before := schemas.NewBatch(s), schemas.NewBatch(s)
	schemastest.Fill(dst, rand.New(rand.NewPCG(1, 1)), 3)
	before.AppendRange(dst, 0, 3)
	m := &schemas.Message{Payload: payload}
	n, _, err := c.AppendRows(dst, m)
	if err != nil && (n != 0 || schemastest.Diff(before, dst) != "" || schemas.KindOf(err) != schemas.Invalid || len(err.Error()) > 2000) {
		t.Fatalf("%q: %d rows, %v", payload, n, err)
	}
	good := schemas.NewBatch(s)
	k, bad, _, gerr := c.AppendGood(good, m, nil)
	switch {
	case err == nil && (gerr != nil || k != n || len(bad) > 0):
		t.Fatalf("%q: at once %d rows, one by one %d, %v, %v", payload, n, k, bad, gerr)
	case err != nil && gerr == nil && len(bad) == 0:
		t.Fatalf("%q: one by one taken, at once %v", payload, err)
	case gerr != nil && good.Rows() != 0 || good.Rows() != k:
		t.Fatalf("%q: %d rows, the batch has %d, %v", payload, k, good.Rows(), gerr)
	}
	if err == nil {
		dst.Truncate(dst.Rows()) // what was there is whole
		back := schemas.NewBatch(s)
		back.AppendRange(dst, 3, dst.Rows())
		if d := schemastest.Diff(back, good); d != "" {
			t.Fatalf("%q: %s", payload, d)
		}
	}
}

// against compares with encoding/csv, which skips empty lines and reads no cell of a line with a bare carriage return
// as we do.
func against(t *testing.T, payload []byte) {
	for i, c := range payload {
		if c == '\r' && !bytes.HasPrefix(payload[i:], []byte("\r\n")) {
			return
		}
	}
	r := csv.NewReader(bytes.NewReader(payload))
	r.FieldsPerRecord = -1
	var want [][]string
	for {
		rec, err := r.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return
		}
		want = append(want, rec)
	}
	s := schemas.MustSchema(schemas.Field{Name: "b", Type: schemas.String}, schemas.Field{Name: "c", Type: schemas.String})
	got := schemas.NewBatch(s)
	n, bad, _, err := codec(t).AppendGood(got, &schemas.Message{Payload: payload}, nil)
	if err != nil {
		t.Fatalf("%q: encoding/csv reads it, we say %v", payload, err)
	}
	row := 0
	for _, rec := range want {
		if len(rec) != 2 || strings.ToValidUTF8(rec[0]+","+rec[1], "") != rec[0]+","+rec[1] {
			continue
		}
		if row >= n {
			t.Fatalf("%q: encoding/csv has more rows than our %d (%v)", payload, n, bad)
		}
		for i := range 2 { // the library makes \r\n within quotes \n
			if ours := strings.ReplaceAll(string(got.Column(i).Text(row)), "\r\n", "\n"); ours != rec[i] {
				t.Fatalf("%q: row %d is %s, encoding/csv has %q", payload, row, jsonrow.AppendObject(nil, got, row), rec)
			}
		}
		row++
	}
	if row != n {
		t.Fatalf("%q: %d rows, encoding/csv has %d", payload, n, row)
	}
}
