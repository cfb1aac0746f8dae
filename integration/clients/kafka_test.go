package clients

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/connectors/kafka"
	"github.com/leatstream/leat/integration/kafka/broker"
	"github.com/leatstream/leat/schemas"
)

// TestKafkaClient: a client that knows Kafka and nothing of ours is answered, and told of faults in one line. The
// pipeline is played by the connector alone.
func TestKafkaClient(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute) // the first time, pip fetches a package
	defer cancel()
	python := environment(t, ctx, "requirements-kafka.txt")
	b := broker.Start(t, 1)
	c := kafka.Default()
	c.Bootstrap = b.Addrs()
	client, err := kafka.Dial(ctx, c, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	src, err := client.Serve(ctx, "flight-delay", "primary")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	defer src.Close(ctx)
	wg.Go(func() {
		for {
			ds, err := src.Receive(ctx, 1)
			if err != nil {
				return
			}
			h, body := answer(ds[0])
			if err := client.Respond(ctx, []connectors.Response{{To: ds[0].ReplyTo, Header: h, Payload: body}}); err != nil {
				t.Error(err)
			}
		}
	})
	script := []string{python, examples + "/python/score_kafka.py", b.Bootstrap()}
	if out, err := run(ctx, append(script, "flight-delay", flight)...); err != nil || !strings.HasPrefix(out, "flight-delay@1 ") || !strings.Contains(out, "'label': 1") {
		t.Errorf("%v, %s", err, out)
	}
	if out, err := run(ctx, append(script, "flight-delay", examples+"/python/requirements.txt")...); err == nil || !strings.HasPrefix(out, "invalid: no rows") {
		t.Errorf("a bad request: %v, %s", err, out)
	}
	if out, err := run(ctx, append(script, "no-such-pipeline", flight)...); err == nil || !strings.Contains(out, "nknown topic") || strings.Contains(out, "Traceback") {
		t.Errorf("an unknown pipeline: %v, %s", err, out)
	}
}

// answer says of each row that it is late, as the pipeline does of the example's.
func answer(d *connectors.Delivery) (schemas.Header, []byte) {
	id := d.Header.Get(schemas.HeaderRequestID)
	var body struct{ Rows []json.RawMessage }
	if err := json.Unmarshal(d.Payload, &body); err != nil || len(body.Rows) == 0 {
		return schemas.ErrorAnswer(schemas.Errorf(schemas.Invalid, "test", "no rows: %w", err), id)
	}
	rows := strings.Repeat(`,{"label":1}`, len(body.Rows))[1:]
	return schemas.Header{schemas.HeaderRequestID: {id}, schemas.HeaderModel: {"flight-delay@1"}}, fmt.Appendf(nil, `{"rows":[%s]}`, rows)
}
