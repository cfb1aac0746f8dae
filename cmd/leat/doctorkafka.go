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

// brokers checks a Kafka cluster as a server would use it: what its brokers speak; a topic that is made, written with a
// message as large as the lineage's, read by a group and in a transaction, and deleted; and the topics that are there.
func (d *doctor) brokers(ctx context.Context) []finding {
	cfg := defaultConfig()
	if d.config != "" {
		if err := cfg.load(d.config); err != nil {
			return []finding{{Status: "fail", Found: err.Error()}}
		}
	}
	if d.kafka != "" {
		cfg.Kafka.Bootstrap = strings.Split(d.kafka, ",")
	}
	if !cfg.hasKafka() {
		return []finding{{Status: "ok", Found: "not configured (--kafka HOST:PORT or --config FILE checks a cluster)"}}
	}
	ctx, cancel := context.WithTimeout(ctx, doctorKafka)
	defer cancel()
	c, err := kafka.Dial(ctx, cfg.Kafka, nil)
	if err != nil {
		return []finding{{Status: "fail", Found: err.Error(), Advice: "check addresses, firewall, TLS and SASL under kafka in the server's file"}}
	}
	defer c.Close()
	all, fit := d.versions(ctx, c)
	if !fit {
		return all
	}
	all = append(all, d.throughKafka(ctx, c, &cfg)...)
	return append(all, d.kafkaTopics(ctx, c, &cfg)...)
}

const (
	// doctorKafka bounds all that is done with a cluster: a group's first member waits for 3 s where brokers are set as
	// they come, twice.
	doctorKafka = time.Minute
	// doctorMessage is about the longest message of the lineage.
	doctorMessage = 900 << 10
)

// versions has a line for each broker; fit is false if there is one that cannot be worked with.
func (d *doctor) versions(ctx context.Context, c *kafka.Client) (all []finding, fit bool) {
	bs, err := c.Brokers(ctx)
	if err != nil {
		return []finding{{Status: "fail", Found: err.Error()}}, false
	}
	fit = true
	for _, b := range bs {
		f := finding{Status: "ok", Found: fmt.Sprintf("broker %d at %s: %s, all %d calls that Leat makes are spoken", b.ID, b.Address, release(&b), b.Calls)}
		switch {
		case b.Err != nil:
			f = finding{Status: "fail", Found: fmt.Sprintf("broker %d: %v", b.ID, b.Err),
				Advice: "its address is what it gives to clients (advertised.listeners): it must be reachable from here"}
		case len(b.Lacks) > 0:
			fit = false
			f = finding{Status: "fail", Found: fmt.Sprintf("broker %d at %s: %s: %s", b.ID, b.Address, release(&b), strings.Join(b.Lacks, "; ")),
				Advice: "Leat works with Kafka " + kafka.Oldest + " and newer"}
		}
		all = append(all, f)
	}
	return all, fit
}

// release is what is known of a broker's age.
func release(b *kafka.BrokerInfo) string {
	if b.Release == "" {
		return "older than Kafka 3.3, or with ZooKeeper"
	}
	return fmt.Sprintf("Kafka %s (metadata.version %d)", b.Release, b.Features["metadata.version"])
}

// throughKafka sends a message all the way, once as at-least-once pipelines do and once in a transaction.
func (d *doctor) throughKafka(ctx context.Context, c *kafka.Client, cfg *Config) []finding {
	start := time.Now()
	name := strings.ToLower(rand.Text())
	topic, group := "leat.doctor-"+name, "leat-doctor-"+name
	denied := "grant the rights that docs/kafka.md lists"
	if p := cfg.Kafka.Prefix; p != "" {
		denied += ", to names that begin with " + p
	}
	bad := func(what string, err error) finding {
		f := finding{Status: "fail", Found: what + ": " + err.Error()}
		switch schemas.KindOf(err) {
		case schemas.Denied:
			f.Advice = denied
		case schemas.Invalid:
			f.Advice = "raise message.max.bytes of the brokers and max.message.bytes of topics"
		}
		return f
	}
	if err := c.EnsureTopic(ctx, topic, 1); err != nil {
		return []finding{bad("a topic cannot be made", err)}
	}
	payload := make([]byte, doctorMessage)
	_, _ = rand.Read(payload) // never fails
	var all []finding
	_, err := c.Publish(ctx, []schemas.Message{{Topic: topic, Payload: payload}})
	if err == nil {
		err = grouped(ctx, c, topic, group, payload, func(ds []*connectors.Delivery) error { return ds[0].Settler.Accept(ctx, ds) })
	}
	if err != nil {
		all = append(all, bad("a message cannot go through", err))
	} else if err = grouped(ctx, c, topic, group+"-exactly", payload, func(ds []*connectors.Delivery) error {
		_, err := c.Transact(ctx, []schemas.Message{{Topic: topic, Payload: []byte("out")}}, ds)
		return err
	}); err != nil {
		f := bad("delivery: exactly_once is not possible", err)
		f.Status = "warn" // at_least_once is
		all = append(all, f)
	}
	if err := c.DeleteTopic(ctx, topic); err != nil {
		f := bad("the topic "+topic+" of this check cannot be deleted", err)
		f.Status = "warn"
		all = append(all, f)
	}
	if len(all) > 0 {
		return all
	}
	return []finding{{Status: "ok", Found: fmt.Sprintf("%s: a topic made, %d KiB stored by all in-sync replicas, read by a group and in a transaction, all deleted in %s",
		strings.Join(cfg.Kafka.Bootstrap, ", "), doctorMessage>>10, time.Since(start).Round(time.Millisecond))}}
}

// grouped reads the topic's first message as a group's member does, settles it, and removes the group.
func grouped(ctx context.Context, c *kafka.Client, topic, group string, payload []byte, settle func([]*connectors.Delivery) error) (err error) {
	src, err := c.Subscribe(ctx, topic, group)
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, src.Close(ctx))
		if err == nil {
			err = c.DeleteGroup(ctx, group)
		}
	}()
	ds, err := src.Receive(ctx, 1)
	if err != nil {
		return err
	}
	if !bytes.Equal(ds[0].Payload, payload) {
		return schemas.Errorf(schemas.Internal, "doctor", "what was read is not what was written")
	}
	return settle(ds)
}
