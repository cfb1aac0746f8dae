package main

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
)

// server is Leat over HTTP.
type server struct{ url string }

// The types that rows travel by.
const (
	arrowStream = "application/vnd.apache.arrow.stream"
	plainJSON   = "application/json"
)

// arms are the pipelines that ask one of the three alone, in the order of bandit.yaml.
var arms = []string{"flight-delay", "flight-boost", "flights-early"}

// prepare pushes the models that are not there yet, and applies a pipeline for each seed and one for the forest alone. It
// returns the names of the former.
func (s *server) prepare(ctx context.Context, o options) ([]string, error) {
	for _, m := range []string{"flight-delay", "flight-boost", "flight-forest"} {
		if _, err := s.do(ctx, http.MethodGet, "/v1/models/"+m, "", nil, nil); err == nil {
			continue
		}
		body, err := folder(filepath.Join(o.data, m))
		if err != nil {
			return nil, err
		}
		if _, err := s.do(ctx, http.MethodPost, "/v1/models", "application/x-tar", body, nil); err != nil {
			return nil, err
		}
	}
	early, err := os.ReadFile(filepath.Join(filepath.Dir(o.spec), "early.yaml"))
	if err != nil {
		return nil, err
	}
	spec, err := os.ReadFile(o.spec)
	if err != nil {
		return nil, err
	}
	specs := []string{string(early)}
	var names []string
	for i := range o.seeds {
		name := fmt.Sprintf("flights-bandit-%02d", i+1)
		names = append(names, name)
		specs = append(specs, strings.Replace(string(spec), "name: flights-bandit\n", "name: "+name+"\n", 1))
	}
	for _, text := range specs {
		body, err := json.Marshal(map[string]string{"spec": text})
		if err != nil {
			return nil, err
		}
		if _, err := s.do(ctx, http.MethodPost, "/v1/pipelines", plainJSON, body, nil); err != nil {
			return nil, err
		}
	}
	return names, nil
}

// folder packs a model's folder.
func folder(dir string) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.AddFS(os.DirFS(dir)); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// ask scores a day's departures under a request id.
func (s *server) ask(ctx context.Context, pipeline, id string, d *day) ([]float64, error) {
	body, err := s.do(ctx, http.MethodPost, "/v1/pipelines/"+pipeline+"/score", arrowStream, d.body, map[string]string{"Leat-Request-Id": id})
	if err != nil {
		return nil, err
	}
	return readLate(body)
}

// do sends a request and returns the body of its answer; an answer that is an error is an error.
func (s *server) do(ctx context.Context, method, path, contentType string, body []byte, headers map[string]string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, s.url+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	for k, v := range headers {
		req.Header.Set(k, v)
	}
	r, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer r.Body.Close()
	answer, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	if r.StatusCode/100 != 2 {
		var said struct{ Error string }
		_ = json.Unmarshal(answer, &said) // what is no error of Leat's is shown by its status
		return nil, fmt.Errorf("%s %s: %s: %s", method, path, r.Status, said.Error)
	}
	return answer, nil
}
