package bulk

import (
	"path/filepath"
	"testing"
)

func TestFileToFile(t *testing.T) {
	w := newWorld(t)
	p := w.start("x")
	es := events(1234, 1)
	for _, format := range []string{".parquet", ".arrow", ".ndjson", ".csv"} {
		src := w.writeEvents("in"+format, es)
		dst := filepath.Join(w.dir, "out"+format)
		v := p.job(RunRequest{From: src, To: dst})
		v = p.done(v.ID)
		if v.Exit != 0 || v.Scored != 1234 || v.Rows != 1234 || v.Written != 13 || v.Chunks != 13 || v.Progress != 1 {
			t.Fatalf("%s: %+v", format, v)
		}
		w.checkFile(dst, es, nil)
		if ok, failed := p.records(v.ID); ok != 1234 || failed != 0 {
			t.Fatalf("%s: %d records ok, %d failed", format, ok, failed)
		}
	}
}
