package gateway

import (
	"net/http"
	"strconv"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/api"
	"github.com/leatstream/leat/schemas/oip"
)

// protocolRoutes are the Open Inference Protocol, version 2, over REST: kserve/open-inference-protocol,
// specification/protocol/inference_rest.md.
func (s *Server) protocolRoutes() []*route {
	var rs []*route
	add := func(method, path string, scope api.Scope, summary string, serve func(http.ResponseWriter, *http.Request, *call) int) {
		rs = append(rs, &route{method: method, path: path, scope: scope, free: method == "GET", summary: summary, serve: serve})
	}
	add("GET", "/v2", api.Read, "Server metadata", s.serverMetadata)
	add("GET", "/v2/health/live", "", "Whether the process answers", s.live)
	add("GET", "/v2/health/ready", "", "Whether every applied pipeline is loaded", s.ready)
	for _, at := range []string{"/v2/models/{model}", "/v2/models/{model}/versions/{version}"} {
		add("GET", at, api.Read, "Model metadata", s.modelMetadata)
		add("GET", at+"/ready", api.Read, "Whether the model is loaded", s.modelReady)
		add("POST", at+"/infer", api.Score, "Inference, tensors as JSON or with binary tensor data", s.infer)
	}
	return rs
}

func (s *Server) serverMetadata(w http.ResponseWriter, r *http.Request, c *call) int {
	return s.json(w, c, http.StatusOK, oip.ServerMetadata{Name: "leat", Version: s.deps.Version, Extensions: oip.Extensions()})
}

type liveReply struct {
	Live bool `json:"live"`
}

type readyReply struct {
	Name  string `json:"name,omitempty"`
	Ready bool   `json:"ready"`
	Error string `json:"error,omitempty"` // what is being waited for
}

func (s *Server) live(w http.ResponseWriter, r *http.Request, c *call) int {
	return s.json(w, c, http.StatusOK, liveReply{true})
}

func (s *Server) ready(w http.ResponseWriter, r *http.Request, c *call) int {
	if err := s.deps.Ready(); err != nil {
		w.Header()["Retry-After"] = retryAfter
		return s.json(w, c, http.StatusServiceUnavailable, readyReply{Error: line(schemas.AsError("gateway.ready", err))})
	}
	return s.json(w, c, http.StatusOK, readyReply{Ready: true})
}

// model looks up what the path names.
func (s *Server) model(r *http.Request) (Metadata, error) {
	name, version := r.PathValue("model"), r.PathValue("version")
	if err := checkModel(name, version); err != nil {
		return Metadata{}, err
	}
	return s.deps.Models.Model(r.Context(), name, version)
}

func checkModel(name, version string) error {
	if err := schemas.CheckName("model", name); err != nil {
		return err
	}
	if version != "" {
		if n, err := strconv.Atoi(version); err != nil || n < 1 || strconv.Itoa(n) != version {
			return schemas.FieldErrorf(schemas.Invalid, "gateway", "version", "%.40q: versions count from 1", version)
		}
	}
	return nil
}

func (s *Server) modelMetadata(w http.ResponseWriter, r *http.Request, c *call) int {
	m, err := s.model(r)
	if err != nil {
		return s.fail(w, r, c, err)
	}
	return s.json(w, c, http.StatusOK, oip.Metadata(m.Name, m.Versions, m.Platform, m.Signature))
}

func (s *Server) modelReady(w http.ResponseWriter, r *http.Request, c *call) int {
	m, err := s.model(r)
	if err != nil {
		return s.fail(w, r, c, err)
	}
	status := http.StatusOK
	if !m.Ready {
		status = http.StatusServiceUnavailable
		w.Header()["Retry-After"] = retryAfter
	}
	return s.json(w, c, status, readyReply{Name: m.Name, Ready: m.Ready})
}

// infer passes an inference request on. Its content type says only whether binary tensors follow the JSON, whatever
// the client's library wrote there.
func (s *Server) infer(w http.ResponseWriter, r *http.Request, c *call) int {
	name, version := r.PathValue("model"), r.PathValue("version")
	if err := checkModel(name, version); err != nil {
		return s.fail(w, r, c, err)
	}
	sc := scoring{topic: name, contentType: oipJSON, idInBody: true}
	if r.Header[oip.HeaderLength] != nil {
		sc.contentType = oipBinary
	}
	if version != "" {
		sc.model = name + "@" + version
	}
	return s.score(w, r, c, &sc)
}

var (
	oipJSON   = []string{oip.ContentType}
	oipBinary = []string{oip.ContentTypeBinary}
)

// scoreNative passes rows on as the caller typed them.
func (s *Server) scoreNative(w http.ResponseWriter, r *http.Request, c *call) int {
	name := r.PathValue("name")
	if err := schemas.CheckName("pipeline", name); err != nil {
		return s.fail(w, r, c, err)
	}
	sc := scoring{topic: name, contentType: r.Header[schemas.HeaderContentType]}
	if len(sc.contentType) > 0 && sc.contentType[0] == "application/x-www-form-urlencoded" {
		sc.contentType = nil // what curl -d says when nobody told it otherwise
	}
	if v := r.Header[schemas.HeaderModel]; len(v) > 0 {
		sc.model = v[0]
	}
	return s.score(w, r, c, &sc)
}
