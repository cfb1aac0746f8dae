package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/leatstream/leat/connectors"
	"github.com/leatstream/leat/connectors/kafka"
	"github.com/leatstream/leat/schemas"
)

// brokers checks a Kafka cluster as a server would use it: a topic is made, a message as large as those of the lineage
// is stored by all in-sync replicas and read back, and the topic is deleted.
func (d *doctor) brokers(ctx context.Context) finding {
	cfg := defaultConfig()
	if d.config != "" {
		if err := cfg.load(d.config); err != nil {
			return finding{Status: "fail", Found: err.Error()}
		}
	}
	if d.kafka != "" {
		cfg.Kafka.Bootstrap = strings.Split(d.kafka, ",")
	}
	if !cfg.hasKafka() {
		return finding{Status: "ok", Found: "not configured (--kafka HOST:PORT or --config FILE checks a cluster)"}
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	c, err := kafka.Dial(ctx, cfg.Kafka, nil)
	if err != nil {
		return finding{Status: "fail", Found: err.Error(), Advice: "check addresses, firewall, TLS and SASL under kafka in the server's file"}
	}
	defer c.Close()
	start := time.Now()
	if err := d.throughKafka(ctx, c); err != nil {
		f := finding{Status: "fail", Found: err.Error()}
		switch schemas.KindOf(err) {
		case schemas.Denied:
			f.Advice = "grant the rights to create, write, read, describe and delete topics" + prefixed(cfg.Kafka.Prefix)
		case schemas.Invalid:
			f.Advice = "raise message.max.bytes of the brokers and max.message.bytes of topics"
		}
		return f
	}
	return finding{Status: "ok", Found: fmt.Sprintf("%s: a topic made, %d KiB stored by all in-sync replicas, read and deleted in %s",
		strings.Join(cfg.Kafka.Bootstrap, ", "), doctorMessage>>10, time.Since(start).Round(time.Millisecond))}
}

func prefixed(prefix string) string {
	if prefix == "" {
		return ""
	}
	return " that begin with " + prefix
}

// doctorMessage is about the longest message of the lineage.
const doctorMessage = 900 << 10

func (d *doctor) throughKafka(ctx context.Context, c *kafka.Client) (err error) {
	topic := "leat.doctor-" + strings.ToLower(rand.Text())
	if err := c.EnsureTopic(ctx, topic, 1); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.DeleteTopic(ctx, topic)) }()
	payload := make([]byte, doctorMessage)
	_, _ = rand.Read(payload) // never fails
	if _, err := c.Publish(ctx, []schemas.Message{{Topic: topic, Payload: payload}}); err != nil {
		return err
	}
	spans, err := c.Spans(ctx, topic, connectors.Start{})
	if err != nil {
		return err
	}
	src, err := c.Open(ctx, spans[0])
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, src.Close(ctx)) }()
	ds, err := src.Receive(ctx, 1)
	if err != nil {
		return err
	}
	if !bytes.Equal(ds[0].Payload, payload) {
		return schemas.Errorf(schemas.Internal, "doctor", "what was read is not what was written")
	}
	return nil
}
