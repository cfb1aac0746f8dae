package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/leatstream/leat/integration/bench/bare"
	"github.com/leatstream/leat/integration/bench/load"
	"github.com/leatstream/leat/integration/floors"
	"github.com/leatstream/leat/integration/kafka/broker"
)

// The samples over Kafka: a real broker of their own, that the floors and the product use by turns. The product is as it
// comes, with all that flows on Kafka, the lineage too; the queue and the results of jobs are on NATS, synced.

// kafkaLab is what they share.
type kafkaLab struct {
	brokers string
	echo    *floors.KafkaEcho
	append  *floors.KafkaAppend
	topics  *floors.KafkaTopics
	leat    *kafkaSide
}

// kafkaSide is the product on Kafka and its client.
type kafkaSide struct {
	*leatSide
	client *load.KafkaClient
	watch  *bare.Kafka
}

// benchTopic is what the topic figures read.
const benchTopic = "bench.in"

// warm is how many measurements' time the broker is used by each side before that is measured: its Java machine compiles what
// runs often.
const warm = 2

// warmUp is a loop whose result is of no use.
func (l *lab) warmUp() load.Loop { return load.Loop{InFlight: 64, Duration: warm * l.c.duration} }

// theKafka starts the broker.
func (l *lab) theKafka() (*kafkaLab, error) {
	if l.kafka == nil {
		c, err := broker.Launch(1, broker.JVM("-XX:+UseG1GC -XX:MaxGCPauseMillis=20"), broker.Dir(l.dir))
		if err != nil {
			return nil, fmt.Errorf("bench: %w", err)
		}
		l.later(c.Close)
		l.kafka = &kafkaLab{brokers: c.Bootstrap()}
	}
	return l.kafka, nil
}

func (l *lab) theKafkaEcho(ctx context.Context) (*floors.KafkaEcho, error) {
	k, err := l.theKafka()
	if err == nil && k.echo == nil {
		if k.echo, err = floors.StartKafkaEcho(ctx, k.brokers); err == nil {
			l.later(k.echo.Close)
			_, err = of(k.echo.Run(ctx, l.native, l.warmUp()))
		}
	}
	if err != nil {
		return nil, err
	}
	return k.echo, nil
}

func (l *lab) theKafkaAppend(ctx context.Context) (*floors.KafkaAppend, error) {
	k, err := l.theKafka()
	if err == nil && k.append == nil {
		if k.append, err = floors.NewKafkaAppend(ctx, k.brokers); err == nil {
			l.later(k.append.Close)
		}
	}
	if err != nil {
		return nil, err
	}
	return k.append, nil
}

// kafkaMessages is how many the topic figures move: the product is measured to the end of them, three times a round.
func (l *lab) kafkaMessages() int { return int(150_000 * l.c.duration.Seconds()) }

func (l *lab) theKafkaTopics(ctx context.Context) (*floors.KafkaTopics, error) {
	k, err := l.theKafka()
	if err == nil && k.topics == nil {
		k.topics, err = floors.NewKafkaTopics(ctx, k.brokers, benchTopic, partitions, l.native, l.rows.Keys, l.kafkaMessages())
		if err == nil {
			_, err = k.topics.Copy(ctx, warm*l.c.duration)
		}
	}
	if err != nil {
		return nil, err
	}
	return k.topics, nil
}

// theKafkaLeat starts the product on the broker and sees that it answers as the model does.
func (l *lab) theKafkaLeat(ctx context.Context) (*kafkaSide, error) {
	k, err := l.theKafka()
	if err != nil {
		return nil, err
	}
	if k.leat == nil {
		dir, err := l.folder("leat-kafka")
		if err != nil {
			return nil, err
		}
		p, err := startProduct(ctx, l.c, l.library, dir, "--kafka", k.brokers, "--transport", "kafka", "--lineage", "kafka")
		if err != nil {
			return nil, err
		}
		s := &kafkaSide{leatSide: &leatSide{product: p, dir: dir, profiled: map[string]bool{}}}
		if s.client, err = load.DialKafka(ctx, k.brokers, "leat.score."+boosted, "leat.replies", 0); err == nil {
			err = l.sameAnswer(ctx, "leat over Kafka", s.client.Ask, l.native)
		}
		if err == nil {
			s.watch, err = bare.Dial(ctx, k.brokers)
		}
		if err == nil {
			_, err = of(s.client.Callers(ctx, l.native, l.warmUp()))
		}
		if err != nil {
			s.close()
			return nil, err
		}
		k.leat = s
		l.later(s.close)
	}
	return k.leat, nil
}

func (s *kafkaSide) close() {
	if s.client != nil {
		s.client.Close()
	}
	if s.watch != nil {
		s.watch.Close()
	}
	s.product.close()
}

func kafkaEcho(ctx context.Context, l *lab, n int) (numbers, error) {
	e, err := l.theKafkaEcho(ctx)
	if err != nil {
		return nil, err
	}
	return of(e.Run(ctx, l.native, l.c.loop(n)))
}

func kafkaAppend(ctx context.Context, l *lab) (numbers, error) {
	a, err := l.theKafkaAppend(ctx)
	if err != nil {
		return nil, err
	}
	return ofLatency(a.Run(ctx, l.c.duration/5, l.c.duration/2))
}

// kafkaTopics runs one of the floors of the topic.
func kafkaTopics(ctx context.Context, l *lab, run func(t *floors.KafkaTopics, ctx context.Context, d time.Duration) (float64, error)) (numbers, error) {
	t, err := l.theKafkaTopics(ctx)
	if err != nil {
		return nil, err
	}
	rate, err := run(t, ctx, l.c.duration)
	return numbers{"rate": rate}, err
}

func leatKafka(ctx context.Context, l *lab, n int) (numbers, error) {
	s, err := l.theKafkaLeat(ctx)
	if err != nil {
		return nil, err
	}
	lp := l.c.loop(n)
	lp.Answer = hold
	return s.watched(ctx, l, "kafka/"+strconv.Itoa(n), func() (numbers, error) {
		return of(s.client.Callers(ctx, l.native, lp))
	})
}

// leatKafkaTopics applies a pipeline that scores the topic into another from its beginning. The rate is taken between
// the times at which the broker stored the first and the last output, so that no reader shares the cores.
func leatKafkaTopics(ctx context.Context, l *lab, delivery string) (numbers, error) {
	s, err := l.theKafkaLeat(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := l.theKafkaTopics(ctx); err != nil {
		return nil, err
	}
	name := "bench-" + strconv.Itoa(l.round) + "-" + strings.ReplaceAll(delivery, "_", "-")
	out := name + ".out"
	if err := s.cli(ctx, "topics", "create", out, "--partitions", strconv.Itoa(partitions)); err != nil {
		return nil, err
	}
	spec := fmt.Sprintf("apiVersion: leat/v1\nkind: Pipeline\nname: %s\ninput: {topic: %s}\noutput: {topic: %s}\ndelivery: %s\nlineage: strict\nroute: {model: %s@champion}\n",
		name, benchTopic, out, delivery, boosted)
	measured, err := s.watched(ctx, l, "kafka/topics/"+delivery, func() (numbers, error) {
		if err := s.apply(ctx, s.dir, name, spec); err != nil {
			return nil, err
		}
		rate, err := s.stored(ctx, name, out, l.kafkaMessages())
		return numbers{"rate": rate}, err
	})
	return measured, errors.Join(err, s.cli(ctx, "pipelines", "delete", name), s.cli(ctx, "topics", "delete", out))
}

// stored waits until a pipeline has committed its n inputs and returns how many outputs a second the broker stored.
func (s *kafkaSide) stored(ctx context.Context, pipeline, out string, n int) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for have := int64(0); have < int64(n); {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return 0, fmt.Errorf("bench: %s has committed %d of %d inputs: %w", pipeline, have, n, ctx.Err())
		}
		at, err := s.watch.Committed(ctx, pipeline, benchTopic, partitions)
		if err != nil {
			return 0, err
		}
		have = 0
		for _, v := range at {
			have += max(v, 0)
		}
	}
	return s.watch.Rate(ctx, out, n)
}

// leatReplay runs a job from the topic to a Parquet file and divides its rows by the time that the command took.
func leatReplay(ctx context.Context, l *lab) (numbers, error) {
	s, err := l.theKafkaLeat(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := l.theKafkaTopics(ctx); err != nil {
		return nil, err
	}
	return s.job(ctx, l, "kafka/replay", "topic:kafka:"+benchTopic, int64(l.kafkaMessages()))
}
