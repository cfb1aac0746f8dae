package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"time"

	"github.com/leatstream/leat/integration/bench/load"
)

// A benchmark of wrong answers is worth nothing: before a side is measured its answers to some requests are set beside
// the model's own, and while it is measured every answer must at least hold a probability.

// hold is the cheap look at every answer.
func hold(payload []byte) error {
	if !bytes.Contains(payload, probabilities) {
		return errors.New("an answer without probabilities")
	}
	return nil
}

var probabilities = []byte("probabilities")

// sameAnswer asks for some rows and compares.
func (l *lab) sameAnswer(ctx context.Context, who string, ask func(ctx context.Context, body []byte) ([]byte, error), bodies [][]byte) error {
	o, err := l.theONNX()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	const rows, tolerance = 16, 1e-6
	for k := range rows {
		i := k * len(bodies) / rows
		want, err := o.Late(l.rows.Row(i))
		if err != nil {
			return err
		}
		b, err := ask(ctx, bodies[i])
		if err != nil {
			return fmt.Errorf("bench: %s: %w", who, err)
		}
		got, err := late(b)
		if err != nil {
			return fmt.Errorf("bench: %s: %w", who, err)
		}
		if !(math.Abs(got-want) <= tolerance) {
			return fmt.Errorf("bench: %s answers %v to row %d, the model says %v", who, got, i, want)
		}
	}
	return nil
}

// late reads the probability of class 1 from a native or an Open Inference Protocol answer of one row.
func late(answer []byte) (float64, error) {
	var a struct {
		Rows []struct {
			Probabilities []float64 `json:"probabilities"`
		} `json:"rows"`
		Outputs []struct {
			Name string          `json:"name"`
			Data json.RawMessage `json:"data"`
		} `json:"outputs"`
	}
	if err := json.Unmarshal(answer, &a); err != nil {
		return 0, fmt.Errorf("answer %.200q: %w", answer, err)
	}
	var p []float64
	if len(a.Rows) == 1 {
		p = a.Rows[0].Probabilities
	}
	for _, o := range a.Outputs {
		if o.Name == string(probabilities) {
			if err := json.Unmarshal(o.Data, &p); err != nil {
				return 0, fmt.Errorf("answer %.200q: %w", answer, err)
			}
		}
	}
	if len(p) != 2 {
		return 0, fmt.Errorf("answer %.200q holds no pair of probabilities", answer)
	}
	return p[1], nil
}

// ask makes one NATS request.
func ask(ctx context.Context, c *load.NATSClient, subject string, body []byte) ([]byte, error) {
	m, err := c.Conn().RequestWithContext(ctx, subject, body)
	if err != nil {
		return nil, err
	}
	return m.Data, nil
}

// post returns a function that makes one infer request.
func post(address string) func(ctx context.Context, body []byte) ([]byte, error) {
	return func(ctx context.Context, body []byte) ([]byte, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+address+load.InferPath, bytes.NewReader(body))
		if err != nil {
			return nil, err
		}
		req.Header.Set("Content-Type", "application/json")
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			return nil, err
		}
		defer func() { _ = res.Body.Close() }()
		b, err := io.ReadAll(res.Body)
		if err == nil && res.StatusCode != http.StatusOK {
			err = fmt.Errorf("status %d: %.200q", res.StatusCode, b)
		}
		return b, err
	}
}
