package crash

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// lines decodes NDJSON.
func lines[T any](fn func(*T)) func(io.Reader) error {
	return func(r io.Reader) error {
		d := json.NewDecoder(r)
		for {
			var v T
			if err := d.Decode(&v); err == io.EOF {
				return nil
			} else if err != nil {
				return err
			}
			fn(&v)
		}
	}
}

func readRecords(ctx context.Context, lf *life, q url.Values, fn func(*record)) error {
	q.Set("format", "ndjson")
	return lf.Do(ctx, http.MethodGet, "/v1/lineage/export?"+q.Encode(), nil, lines(fn))
}

func readTopic(ctx context.Context, lf *life, topic string, fn func(*message)) error {
	return lf.Do(ctx, http.MethodGet, "/v1/topics/"+topic+"/messages", nil, lines(fn))
}

// readTruth reads what is stored.
func readTruth(ctx context.Context, lf *life, data string) (*truth, error) {
	t := &truth{}
	err := errors.Join(
		readRecords(ctx, lf, url.Values{"run": {"-"}, "all": {"true"}}, func(r *record) { t.records = append(t.records, *r) }),
		readTopic(ctx, lf, inputs, func(m *message) { t.inputs = append(t.inputs, message{Headers: m.Headers}) }),
		readTopic(ctx, lf, outputs, func(m *message) { t.outputs = append(t.outputs, *m) }))
	if err != nil {
		return nil, err
	}
	t.dead, err = readDead(ctx, lf, data)
	return t, err
}

// readDead reads the dead letters with the store's own credentials.
func readDead(ctx context.Context, lf *life, data string) ([]letter, error) {
	b, err := os.ReadFile(filepath.Join(data, "nats", "credentials.json"))
	if err != nil {
		return nil, err
	}
	var creds struct {
		Leat struct{ User, Password string }
	}
	if err := json.Unmarshal(b, &creds); err != nil {
		return nil, err
	}
	nc, err := nats.Connect(lf.NATS, nats.UserInfo(creds.Leat.User, creds.Leat.Password))
	if err != nil {
		return nil, err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, err
	}
	s, err := js.Stream(ctx, "LEAT_DEAD")
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	st := s.CachedInfo().State
	var dead []letter
	for seq := st.FirstSeq; seq <= st.LastSeq && st.Msgs > 0; seq++ {
		m, err := s.GetMsg(ctx, seq)
		if err != nil {
			return nil, fmt.Errorf("dead letter %d: %w", seq, err)
		}
		dead = append(dead, letter{m.Header.Get("Leat-Request-Id"), m.Header.Get("Leat-Error-Kind"), m.Header.Get("Leat-Error")})
	}
	return dead, nil
}

// drained waits until the group of the stream's pipeline has settled all that is stored.
func drained(ctx context.Context, lf *life) error {
	for quiet := 0; quiet < 3; {
		var t struct {
			Groups []struct {
				Name         string
				Lag, Pending uint64
			}
		}
		if err := lf.Do(ctx, http.MethodGet, "/v1/topics/"+inputs, nil, &t); err != nil {
			return err
		}
		quiet++
		found := false
		for _, g := range t.Groups {
			if found = found || g.Name == stream; g.Lag+g.Pending > 0 {
				quiet = 0
			}
		}
		if !found {
			quiet = 0
		}
		rest(ctx, 100*time.Millisecond)
		if ctx.Err() != nil {
			return fmt.Errorf("topic %s: %+v: %w", inputs, t.Groups, ctx.Err())
		}
	}
	return nil
}
