package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/leatstream/leat/connectors/nats"
)

// serveFlags are the flags of leat serve; each overrides the file.
type serveFlags struct {
	config, data, http, nats, natsURL, natsCreds string
	kafka, transport, lineage                    string
	sync, library, level, pprof                  string
	tokens, cert, key                            string
	groups                                       []string
}

func serveCommand(e *env) *cobra.Command {
	var f serveFlags
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run a server",
		Long: `Run a server: the embedded NATS server (or a connection to an external one), the
scorers, the HTTP gateway and the jobs. Without flags it listens on loopback
only, on ports 8080 and 4222, and keeps its data in your data folder.

Once it is ready it prints its addresses; with --json as one line of JSON.

SIGTERM or Ctrl-C drains: the server says that it is not ready, accepted work
finishes within its deadline, and the exit status is 0. A second signal ends it
at once; nothing that was accepted is lost by that either.`,
		Example: `  leat serve
  leat serve --data ./data --http 127.0.0.1:0 --nats 127.0.0.1:0 --json
  leat serve --sync interval                  # faster; a power cut may lose the last seconds
  leat serve --nats-url nats://10.0.0.7:4222 --nats-creds leat.creds
  leat serve --kafka 127.0.0.1:9092                       # kafka:NAME names a topic there
  leat serve --kafka 10.0.0.5:9092,10.0.0.6:9092 --transport kafka --lineage kafka
  leat serve --groups primary                             # shadows are left to other processes, such as:
  leat serve --groups shadow:forest --data ./forest --http 127.0.0.1:0 --nats-url nats://127.0.0.1:4222 --nats-creds ./data/nats
  leat serve --http 0.0.0.0:8443 --tls-cert c.pem --tls-key k.pem --token-file tokens`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := f.resolve()
			if err != nil {
				return failed(err)
			}
			return failed(e.serve(cmd.Context(), cfg, &f))
		},
	}
	fs := cmd.Flags()
	fs.StringVar(&f.config, "config", "", "YAML file; docs/cli.md lists its keys")
	fs.StringVar(&f.data, "data", "", "data folder (default: in your data folder)")
	fs.StringVar(&f.http, "http", "", "address of the HTTP gateway (default "+defaultHTTP+"); port 0 picks a free one")
	fs.StringVar(&f.nats, "nats", "", "address of the embedded NATS server (default "+defaultNATS+"); port 0 picks a free one")
	fs.StringVar(&f.natsURL, "nats-url", "", "use this NATS server instead of the embedded one")
	fs.StringVar(&f.natsCreds, "nats-creds", "", "credentials file for --nats-url; or the nats folder in the data of the server that runs it")
	fs.StringSliceVar(&f.groups, "groups", nil, "what to do of the pipelines: primary, shadow:NAME (default all, for its own requests alone)")
	fs.StringVar(&f.kafka, "kafka", "", "brokers of a Kafka cluster, HOST:PORT,...: its topics are data planes beside NATS; TLS and SASL: see kafka in --config")
	fs.StringVar(&f.transport, "transport", "", "where topics live that are named without nats: or kafka: (default nats)")
	fs.StringVar(&f.lineage, "lineage", "", "where the lineage lives: nats or kafka (default nats)")
	fs.StringVar(&f.sync, "sync", "", "when an append is on disk: always (before its acknowledgement) or interval (default always)")
	fs.StringVar(&f.library, "onnxruntime", "", "ONNX Runtime's library (default: $LEAT_ONNXRUNTIME, the cache, the system)")
	fs.StringVar(&f.level, "log", "info", "least level to log: debug, info, warn, error")
	fs.StringVar(&f.pprof, "pprof", "", "serve Go's profiles on this loopback address, such as 127.0.0.1:0")
	fs.StringVar(&f.tokens, "token-file", "", "file of bearer tokens, a line each: TOKEN SCOPE PRINCIPAL; needed off loopback")
	fs.StringVar(&f.cert, "tls-cert", "", "PEM certificate; needed off loopback")
	fs.StringVar(&f.key, "tls-key", "", "PEM key of --tls-cert")
	return cmd
}

// resolve joins defaults, file, environment and flags, and validates.
func (f *serveFlags) resolve() (Config, error) {
	c := defaultConfig()
	if f.config != "" {
		if err := c.load(f.config); err != nil {
			return c, err
		}
	}
	set := func(to *string, from string) {
		if from != "" {
			*to = from
		}
	}
	set(&c.Data, f.data)
	set(&c.HTTP.Listen, f.http)
	set(&c.HTTP.TokenFile, f.tokens)
	set(&c.HTTP.TLSCert, f.cert)
	set(&c.HTTP.TLSKey, f.key)
	set(&c.NATS.Client.URL, f.natsURL)
	set(&c.NATS.Client.Credentials.File, f.natsCreds)
	if i, err := os.Stat(c.NATS.Client.Credentials.File); err == nil && i.IsDir() {
		dir := c.NATS.Client.Credentials.File
		if c.NATS.Client.Credentials, c.NATS.Client.Front, err = nats.ReadCredentials(dir); err != nil {
			return c, err
		}
		c.NATS.Client.FrontURL = c.NATS.Client.URL
	}
	if len(f.groups) > 0 {
		c.Pipeline.Groups = f.groups
	}
	set(&c.Transport, f.transport)
	set(&c.Lineage.Transport, f.lineage)
	if f.kafka != "" {
		c.Kafka.Bootstrap = strings.Split(f.kafka, ",")
	}
	if c.Data == "" {
		var err error
		if c.Data, err = defaultData(); err != nil {
			return c, err
		}
	}
	if f.nats != "" {
		var err error
		if c.NATS.Server.Host, c.NATS.Server.Port, err = hostPort("nats", f.nats); err != nil {
			return c, &exitError{exitUsage, err}
		}
	}
	switch f.sync {
	case "":
	case "always", "interval":
		c.NATS.Server.Sync = f.sync == "always"
	default:
		return c, &exitError{exitUsage, fmt.Errorf("--sync %q: want always or interval", f.sync)}
	}
	c.NATS.Server.Dir = c.Data
	c.ONNX.Library.Path, c.ONNX.Library.Env = f.library, os.Getenv("LEAT_ONNXRUNTIME")
	if err := f.secureNATS(&c); err != nil {
		return c, err
	}
	return c, c.Validate()
}

// secureNATS gives the embedded server the gateway's certificate and first token, which it needs off loopback.
func (f *serveFlags) secureNATS(c *Config) error {
	if f.cert != "" && f.key != "" {
		pair, err := tls.LoadX509KeyPair(f.cert, f.key)
		if err != nil {
			return err
		}
		c.NATS.Server.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	}
	if f.tokens == "" {
		return nil
	}
	b, err := os.ReadFile(f.tokens)
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(b)) {
		if fields := strings.Fields(line); len(fields) >= 2 && !strings.HasPrefix(fields[0], "#") && fields[1] != "read" {
			c.NATS.Server.Token = fields[0]
			return nil
		}
	}
	return errors.New("--token-file: no token with the scope score or admin, which clients of NATS need")
}

// addresses is what leat serve prints once it is ready.
type addresses struct {
	HTTP  string `json:"http"`
	NATS  string `json:"nats"`
	Data  string `json:"data"`
	PID   int    `json:"pid"`
	Pprof string `json:"pprof,omitempty"`
}

func (e *env) serve(ctx context.Context, cfg Config, f *serveFlags) error {
	var level slog.Level
	if err := level.UnmarshalText([]byte(f.level)); err != nil {
		return &exitError{exitUsage, fmt.Errorf("--log %q: want debug, info, warn or error", f.level)}
	}
	log := slog.New(slog.NewTextHandler(e.err, &slog.HandlerOptions{Level: level}))
	if cfg.Pipeline.Cores == 0 {
		cfg.Pipeline.Cores = runtime.GOMAXPROCS(0)
	}
	// Go's scheduler knows no priorities: with as many threads as cores, a request's goroutines queue behind those of a
	// job. With more, the system's scheduler wakes them at once. Models still run on no more than the cores.
	runtime.GOMAXPROCS(2 * cfg.Pipeline.Cores)
	a, err := newApp(ctx, cfg, log)
	if err != nil {
		return err
	}
	defer a.close()
	scheme := "http"
	if cfg.HTTP.TLSCert != "" {
		scheme = "https"
	}
	at := addresses{HTTP: scheme + "://" + a.http.String(), NATS: a.natsURL(), Data: cfg.Data, PID: os.Getpid()}
	g, gctx := errgroup.WithContext(ctx)
	if f.pprof != "" {
		if at.Pprof, err = servePprof(gctx, g, f.pprof); err != nil {
			return err
		}
	}
	g.Go(func() error { return a.run(gctx) })
	g.Go(func() error { return e.announce(gctx, a, at) })
	return g.Wait()
}

// readyPatience is how long the server waits for its pipelines before it prints its addresses without them.
const readyPatience = 5 * time.Second

// announce prints the addresses once every pipeline is loaded, or says which are not.
func (e *env) announce(ctx context.Context, a *app, at addresses) error {
	limit := time.NewTimer(readyPatience)
	defer limit.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	err := a.ready()
	for waiting := true; err != nil && waiting; {
		select {
		case <-tick.C:
			err = a.ready()
		case <-limit.C:
			waiting = false
		case <-ctx.Done():
			return nil
		}
	}
	if err != nil {
		a.log.Warn("serving, but not ready", "reason", err)
	}
	if e.json {
		return json.NewEncoder(e.out).Encode(at)
	}
	_, err = fmt.Fprintf(e.out, "leat %s is ready\n  HTTP  %s\n  NATS  %s\n  data  %s\n", version, at.HTTP, at.NATS, at.Data)
	return err
}

// servePprof serves profiles on a loopback address.
func servePprof(ctx context.Context, g *errgroup.Group, addr string) (string, error) {
	host, _, err := hostPort("pprof", addr)
	if err != nil {
		return "", &exitError{exitUsage, err}
	}
	if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
		return "", &exitError{exitUsage, fmt.Errorf("--pprof %s: profiles are served on loopback only, such as 127.0.0.1:0", addr)}
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if err != nil {
		return "", err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	s := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	g.Go(func() error {
		if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	g.Go(func() error {
		<-ctx.Done()
		return s.Close()
	})
	return "http://" + l.Addr().String() + "/debug/pprof/", nil
}
