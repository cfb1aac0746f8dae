package crash

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"

	"github.com/leatstream/leat/connectors/files"
)

// The models of the example, whose pipelines have their names, and the pipeline that scores the topic.
const (
	boost   = "flight-boost"
	delay   = "flight-delay"
	stream  = "crash-stream"
	inputs  = "crash.in"
	outputs = "crash.out"
)

var models = []string{boost, delay}

// modelOf returns what a pipeline scores with.
func modelOf(pipeline string) string {
	if pipeline == stream {
		return boost
	}
	return pipeline
}

var streamSpec = fmt.Sprintf("apiVersion: leat/v1\nkind: Pipeline\nname: %s\ninput: {topic: %s}\noutput: {topic: %s}\nroute: {model: %s@champion}\n", stream, inputs, outputs, boost)

// columns are the inputs of the models. A row may hold no other name.
var columns = map[string][]string{
	boost: strings.Fields("dep_delay sched_dep_minute sched_clock_minutes day_of_week distance temp humid wind_speed precip pressure visib plane_age seats"),
	delay: strings.Fields("carrier origin dest dep_delay sched_dep_minute sched_clock_minutes day_of_week distance temp humid wind_speed precip pressure visib plane_age seats"),
}

func samplePath() (string, error) { return filepath.Abs(root + "/examples/flights/sample.parquet") }

// samples are rows of the example as JSON objects, by model.
type samples map[string][]json.RawMessage

// sampled is how many different rows are asked: few enough that each is asked by every way in. jobRows are the rows of
// a job: it lives through several kills at its throttle, and several jobs fit a test.
const (
	sampled = 2000
	jobRows = 16000
)

// readSamples reads the first rows of the example, and writes those of the jobs to a file of their own.
func readSamples(ctx context.Context, jobFile string) (samples, error) {
	path, err := samplePath()
	if err != nil {
		return nil, err
	}
	r, err := files.Open(ctx, path, files.Options{BatchRows: jobRows})
	if err != nil {
		return nil, err
	}
	defer r.Close()
	rec, err := r.Next(ctx)
	if err != nil {
		return nil, err
	}
	defer rec.Release()
	w, err := files.Create(jobFile, rec.Schema(), files.WriterOptions{})
	if err != nil {
		return nil, err
	}
	defer w.Abort() // after Commit it does nothing
	if err := errors.Join(w.Write(rec), w.Commit()); err != nil {
		return nil, err
	}
	first := rec.NewSlice(0, sampled)
	defer first.Release()
	b, err := first.MarshalJSON()
	if err != nil {
		return nil, err
	}
	var rows []map[string]json.RawMessage
	if err := json.Unmarshal(b, &rows); err != nil {
		return nil, err
	}
	s := samples{}
	for _, m := range models {
		for _, row := range rows {
			one := map[string]json.RawMessage{}
			for _, c := range columns[m] {
				one[c] = row[c]
			}
			b, err := json.Marshal(one)
			if err != nil {
				return nil, err
			}
			s[m] = append(s[m], b)
		}
	}
	return s, nil
}

// pick draws 1 to most rows.
func pick(r *rand.Rand, most int) []int {
	is := make([]int, 1+r.IntN(most))
	for i := range is {
		is[i] = r.IntN(sampled)
	}
	return is
}

// body writes rows as native JSON.
func (s samples) body(model string, is []int) []byte {
	b := []byte(`{"rows":[`)
	for i, n := range is {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, s[model][n]...)
	}
	return append(b, `]}`...)
}
