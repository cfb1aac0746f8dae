package codec

import (
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/jsonrow"
	"github.com/leatstream/leat/schemas/schemastest"
	"github.com/leatstream/leat/schemas/wire"
)

// All codecs of one fresh schema are used at once: what they keep with the schema is made once and shared.
func TestConcurrentUse(t *testing.T) {
	s := schemastest.Everything()
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			b, back := schemas.NewBatch(s), schemas.NewBatch(s)
			schemastest.Fill(b, rand.New(rand.NewPCG(uint64(g), 0)), 5)
			for _, enc := range []schemas.Encoder{wire.Codec{}, wire.StreamCodec{}, jsonrow.Rows(), jsonrow.Columns()} {
				for range 10 {
					m := &schemas.Message{Header: schemas.Header{}}
					var err error
					if m.Payload, err = enc.EncodeRows(nil, m.Header, b, 0, 5, nil); err != nil {
						t.Error(err)
						return
					}
					c, err := For(m)
					if err != nil {
						t.Error(err)
						return
					}
					back.Reset()
					if _, _, err := c.AppendRows(back, m); err != nil {
						t.Error(err)
						return
					}
					if d := schemastest.Diff(b, back); d != "" {
						t.Errorf("%T: %s", c, d)
						return
					}
				}
			}
		})
	}
	wg.Wait()
}
