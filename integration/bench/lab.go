package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"github.com/leatstream/leat/integration/bench/load"
	"github.com/leatstream/leat/integration/bench/peers"
	"github.com/leatstream/leat/integration/floors"
)

// lab holds what samples share. Everything is started when the first sample asks for it and stays up, idle, between
// its turns; close ends it all.
type lab struct {
	c       *config
	dir     string // removed at the end
	library string // ONNX Runtime
	env     *peers.Environment
	sample  *load.Rows // as it is, with nulls
	rows    *load.Rows // without nulls, for payloads
	native  [][]byte
	oip     [][]byte
	closers []func() // last first

	echo    *floors.Echo
	httpd   *floors.HTTPEcho
	onnx    *floors.ONNX
	batch   int // best for onnx
	appends [2]*floors.Append
	topics  [2]*floors.Topics
	servers [2]*floors.Server
	natspy  *load.NATSClient
	fastapi *load.HTTPClient
	leats   [2]*leatSide
	kafka   *kafkaLab
	routes  *routesLab
	bulk    string // Parquet file of the bulk figure
	round   int
}

// The two sync settings as indices.
const (
	unsynced = 0
	synced   = 1
)

var (
	settings  = [2]string{"unsynced", "synced"}
	syncFlags = [2]string{"--sync=interval", "--sync=always"}
)

// leatSide is the product with one sync setting and its clients.
type leatSide struct {
	*product
	dir      string
	client   *load.NATSClient
	gateway  *load.HTTPClient
	profiled map[string]bool
}

// payloads is how many different requests are asked in turn.
const payloads = 4096

func newLab(ctx context.Context, c *config) (*lab, error) {
	dir, err := os.MkdirTemp(c.tmp, "leat-bench-")
	if err != nil {
		return nil, fmt.Errorf("bench: %w", err)
	}
	l := &lab{c: c, dir: dir}
	l.later(func() { _ = os.RemoveAll(dir) })
	if err := l.prepare(ctx); err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

func (l *lab) prepare(ctx context.Context) (err error) {
	if l.env, err = peers.Prepare(ctx, l.c.venv, os.Stderr); err != nil {
		return err
	}
	if l.library = l.c.library; l.library == "" {
		if l.library, err = l.env.Library(); err != nil {
			return err
		}
	}
	if l.sample, err = load.ReadRows(ctx, filepath.Join(l.c.example, "sample.parquet")); err != nil {
		return err
	}
	l.rows = l.sample.Complete(payloads)
	l.native, l.oip = l.rows.Native(), l.rows.OIP()
	return nil
}

func (l *lab) later(f func()) { l.closers = append(l.closers, f) }

// close ends everything, the youngest first.
func (l *lab) close() {
	for i := len(l.closers) - 1; i >= 0; i-- {
		l.closers[i]()
	}
	l.closers = nil
}

func (l *lab) model() string { return filepath.Join(l.c.example, boosted, "model.onnx") }

// folder makes a folder of the lab.
func (l *lab) folder(name string) (string, error) {
	dir := filepath.Join(l.dir, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("bench: %w", err)
	}
	return dir, nil
}

func (l *lab) theEcho(ctx context.Context) (_ *floors.Echo, err error) {
	if l.echo == nil {
		dir, err := l.folder("echo")
		if err != nil {
			return nil, err
		}
		if l.echo, err = floors.StartEcho(ctx, dir); err != nil {
			return nil, err
		}
		l.later(l.echo.Close)
	}
	return l.echo, nil
}

func (l *lab) theHTTPEcho(ctx context.Context) (_ *floors.HTTPEcho, err error) {
	if l.httpd == nil {
		if l.httpd, err = floors.StartHTTPEcho(ctx); err != nil {
			return nil, err
		}
		l.later(l.httpd.Close)
	}
	return l.httpd, nil
}

func (l *lab) theONNX() (*floors.ONNX, error) {
	if l.onnx == nil {
		model, err := os.ReadFile(l.model())
		if err != nil {
			return nil, fmt.Errorf("bench: %w", err)
		}
		if l.onnx, err = floors.NewONNX(l.library, model, l.sample); err != nil {
			return nil, err
		}
		l.later(func() { _ = l.onnx.Close() })
	}
	return l.onnx, nil
}

// server is the embedded server of the JetStream floors.
func (l *lab) server(setting int) (*floors.Server, error) {
	if l.servers[setting] == nil {
		dir, err := l.folder("jetstream-" + settings[setting])
		if err != nil {
			return nil, err
		}
		s, err := floors.StartServer(dir, setting == synced)
		if err != nil {
			return nil, err
		}
		l.servers[setting] = s
		l.later(s.Close)
	}
	return l.servers[setting], nil
}

func (l *lab) theAppend(ctx context.Context, setting int) (*floors.Append, error) {
	if l.appends[setting] == nil {
		s, err := l.server(setting)
		if err != nil {
			return nil, err
		}
		a, err := floors.NewAppend(ctx, s, true)
		if err != nil {
			return nil, err
		}
		l.appends[setting] = a
		l.later(a.Close)
	}
	return l.appends[setting], nil
}

// messages is what the topic figures move: enough for some seconds of the floor.
func (l *lab) messages(setting int) int {
	perSecond := 150_000.0
	if setting == synced {
		perSecond = 10_000
	}
	return int(perSecond * l.c.duration.Seconds())
}

func (l *lab) theTopics(ctx context.Context, setting int) (*floors.Topics, error) {
	if l.topics[setting] == nil {
		s, err := l.server(setting)
		if err != nil {
			return nil, err
		}
		t, err := floors.NewTopics(ctx, s, l.native, l.rows.Keys, l.messages(setting))
		if err != nil {
			return nil, err
		}
		l.topics[setting] = t
		l.later(t.Close)
	}
	return l.topics[setting], nil
}

// peerSubject is where the Python responder listens, on the echo's server.
const peerSubject = "peer.score"

func (l *lab) theNATSPy(ctx context.Context) (*load.NATSClient, error) {
	if l.natspy == nil {
		e, err := l.theEcho(ctx)
		if err != nil {
			return nil, err
		}
		p, err := l.env.NATS(ctx, e.URL(), peerSubject, l.model())
		if err != nil {
			return nil, err
		}
		l.later(p.Close)
		if l.natspy, err = load.DialNATS(e.URL()); err != nil {
			return nil, err
		}
		l.later(l.natspy.Close)
		if err := l.sameAnswer(ctx, "nats-py", func(ctx context.Context, body []byte) ([]byte, error) {
			return ask(ctx, l.natspy, peerSubject, body)
		}, l.native); err != nil {
			return nil, err
		}
	}
	return l.natspy, nil
}

func (l *lab) theFastAPI(ctx context.Context) (*load.HTTPClient, error) {
	if l.fastapi == nil {
		const workers = 2
		p, err := l.env.HTTP(ctx, workers, l.model())
		if err != nil {
			return nil, err
		}
		l.later(p.Close)
		if err := l.sameAnswer(ctx, "FastAPI", post(p.Address), l.oip); err != nil {
			return nil, err
		}
		l.fastapi = load.NewHTTPClient(p.Address)
	}
	return l.fastapi, nil
}

func (l *lab) leat(ctx context.Context, setting int) (*leatSide, error) {
	if l.leats[setting] == nil {
		s, err := l.startLeat(ctx, "leat-"+settings[setting], setting)
		if err != nil {
			return nil, err
		}
		l.leats[setting] = s
		l.later(s.close)
	}
	return l.leats[setting], nil
}

// startLeat starts the product and sees that it answers as the model does.
func (l *lab) startLeat(ctx context.Context, name string, setting int) (*leatSide, error) {
	dir, err := l.folder(name)
	if err != nil {
		return nil, err
	}
	p, err := startProduct(ctx, l.c, l.library, dir, syncFlags[setting])
	if err != nil {
		return nil, err
	}
	s := &leatSide{product: p, dir: dir, gateway: load.NewHTTPClient(p.http), profiled: map[string]bool{}}
	if s.client, err = load.DialNATS(p.nats); err == nil {
		err = l.sameAnswer(ctx, "leat over NATS", func(ctx context.Context, body []byte) ([]byte, error) {
			return ask(ctx, s.client, scoreSubject, body)
		}, l.native)
	}
	if err == nil {
		err = l.sameAnswer(ctx, "leat over HTTP", post(p.http), l.oip)
	}
	if err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *leatSide) close() {
	if s.client != nil {
		s.client.Close()
	}
	s.product.close()
}

// threads is on how many threads the bulk floor scores: as many as the product may.
func threads() int { return runtime.GOMAXPROCS(0) }
