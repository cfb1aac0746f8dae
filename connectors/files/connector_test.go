package files

import (
	"context"
	"testing"

	"github.com/apache/arrow/go/v15/arrow"
	"go.uber.org/goleak"

	"github.com/leatstream/leat/connectors/connectortest"
	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/schemastest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Claims of files: they are no streams of messages.
var claims = connectortest.Claims{Name: "files", Files: true}

func TestConnector(t *testing.T) {
	const rowBytes = 1 << 20
	everything := schemastest.Everything()
	// CSV has one value in a cell, and reads an empty one of a column that may be null as null.
	var cells []schemas.Field
	for _, f := range everything.Fields() {
		if !f.Tensor() && !(f.Type.Variable() && f.Nullable) {
			cells = append(cells, f)
		}
	}
	connectortest.Run(t, connectortest.Subject{
		Claims: claims,
		Formats: []connectortest.FileFormat{
			{Ending: ".parquet", Columns: everything},
			{Ending: ".arrow", Columns: everything},
			{Ending: ".arrows", Columns: everything},
			{Ending: ".ndjson", Columns: everything, MaxRow: rowBytes},
			{Ending: ".json", Columns: everything, MaxRow: rowBytes},
			{Ending: ".csv", Columns: schemas.MustSchema(cells...), MaxRow: rowBytes},
		},
		Open: func(testing.TB) (connectortest.Transport, func() connectortest.Transport, func()) {
			return connectortest.Transport{Files: suiteFiles{rowBytes}}, nil, nil
		},
	})
}

// suiteFiles are the package's functions with a bound of rows that a test can reach.
type suiteFiles struct{ rowBytes int }

func (s suiteFiles) Open(ctx context.Context, path string, o connectortest.FileOptions) (connectortest.FileReader, error) {
	return Open(ctx, path, Options{BatchRows: o.BatchRows, FromRow: o.FromRow, Want: o.Want, rowBytes: s.rowBytes})
}

func (suiteFiles) Create(path string, s *arrow.Schema, o connectortest.FileWriterOptions) (connectortest.FileWriter, error) {
	return Create(path, s, WriterOptions{Overwrite: o.Overwrite, RowGroup: o.Group})
}
