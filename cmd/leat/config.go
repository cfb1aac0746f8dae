package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/leatstream/leat/connectors/gateway"
	"github.com/leatstream/leat/connectors/kafka"
	"github.com/leatstream/leat/connectors/nats"
	"github.com/leatstream/leat/lineage"
	"github.com/leatstream/leat/pipeline"
	"github.com/leatstream/leat/pipeline/bulk"
	"github.com/leatstream/leat/pipeline/lookup"
	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/confluent"
	"github.com/leatstream/leat/scorers/onnx"
	"github.com/leatstream/leat/scorers/registry"
)

const (
	defaultHTTP = "127.0.0.1:8080"
	defaultNATS = "127.0.0.1:4222"
)

// Config is the server's file (leat serve --config FILE): the packages' own configurations under one roof.
type Config struct {
	Data      string          `yaml:"data"`      // folder of streams, models and marks
	Transport string          `yaml:"transport"` // where a topic lives that is named without one: nats or kafka
	NATS      natsConfig      `yaml:"nats"`
	Kafka     kafka.Config    `yaml:"kafka"` // without bootstrap: no Kafka
	Schemas   registryConfig  `yaml:"schema_registry"`
	HTTP      gateway.Config  `yaml:"http"`
	Lineage   lineageConfig   `yaml:"lineage"`
	Pipeline  pipeline.Config `yaml:"pipeline"`
	Lookup    lookup.Config   `yaml:"lookup"`
	Jobs      bulk.Config     `yaml:"jobs"`
	Registry  registry.Config `yaml:"registry"`
	ONNX      onnx.Config     `yaml:"onnx"`
}

// natsConfig is the embedded NATS server and our connections to it, or to an external one (nats.url).
type natsConfig struct {
	Server nats.ServerConfig `yaml:",inline"`
	Client nats.Config       `yaml:",inline"`
}

// registryConfig is a Confluent-compatible schema registry, which names the schemas of Avro and Protobuf records.
type registryConfig struct {
	URL          string        `yaml:"url"` // empty: none
	Username     string        `yaml:"username"`
	PasswordFile string        `yaml:"password_file"` // holds the password; a line's end is ignored
	CAFile       string        `yaml:"ca_file"`       // PEM; empty: the system's authorities
	Timeout      time.Duration `yaml:"timeout"`       // of one schema with its references; 0: 5s
}

// config reads the files that r names.
func (r *registryConfig) config() (confluent.Config, error) {
	c := confluent.Config{URL: r.URL, Username: r.Username, Timeout: r.Timeout}
	if r.PasswordFile != "" {
		b, err := os.ReadFile(r.PasswordFile)
		if err != nil {
			return c, fmt.Errorf("schema_registry.password_file: %w", err)
		}
		c.Password = strings.TrimRight(string(b), "\r\n")
	}
	if r.CAFile != "" {
		b, err := os.ReadFile(r.CAFile)
		if err != nil {
			return c, fmt.Errorf("schema_registry.ca_file: %w", err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(b) {
			return c, fmt.Errorf("schema_registry.ca_file: no certificate in %s", r.CAFile)
		}
		c.TLS = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	return c, c.Validate()
}

// lineageConfig is the lineage and where its streams live.
type lineageConfig struct {
	Transport      string `yaml:"transport"` // nats or kafka
	lineage.Config `yaml:",inline"`
}

func defaultConfig() Config {
	return Config{
		Transport: schemas.TransportNATS, NATS: natsConfig{nats.DefaultServer(), nats.Default()}, Kafka: kafka.Default(),
		HTTP: gateway.Default(), Lineage: lineageConfig{schemas.TransportNATS, lineage.Default()},
		Pipeline: pipeline.DefaultConfig(), Lookup: lookup.Default(), Jobs: bulk.Default(), Registry: registry.Default(), ONNX: onnx.Default(),
	}
}

// load reads a file over the defaults. An unknown key is an error.
func (c *Config) load(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	d := yaml.NewDecoder(f)
	d.KnownFields(true)
	if err := d.Decode(c); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// Validate reports every fault.
func (c *Config) Validate() error {
	errs := []error{c.HTTP.Validate(), c.Lineage.Validate(), c.Pipeline.Validate(), c.Lookup.Validate(), c.Jobs.Validate(), c.Registry.Validate(), c.ONNX.Validate()}
	if c.NATS.Client.URL == "" {
		errs = append(errs, c.NATS.Server.Validate())
	}
	for _, f := range []struct{ field, value string }{{"transport", c.Transport}, {"lineage.transport", c.Lineage.Transport}} {
		switch {
		case f.value != schemas.TransportNATS && f.value != schemas.TransportKafka:
			errs = append(errs, schemas.FieldErrorf(schemas.Invalid, "config", f.field, "%q: want nats or kafka", f.value))
		case f.value == schemas.TransportKafka && !c.hasKafka():
			errs = append(errs, schemas.FieldErrorf(schemas.Invalid, "config", f.field, "kafka, but no broker is named: start with --kafka HOST:PORT, or set kafka.bootstrap"))
		}
	}
	if c.hasKafka() {
		errs = append(errs, c.Kafka.Validate())
	}
	return errors.Join(errs...)
}

// hasKafka reports whether the server uses a Kafka cluster.
func (c *Config) hasKafka() bool { return len(c.Kafka.Bootstrap) > 0 }

// defaultData is <user's data folder>/leat.
func defaultData() (string, error) {
	if d := os.Getenv("XDG_DATA_HOME"); d != "" {
		return filepath.Join(d, "leat"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("no home folder (%w): name a data folder with --data", err)
	}
	return filepath.Join(home, ".local", "share", "leat"), nil
}

// hostPort splits an address as flags give it.
func hostPort(flag, s string) (string, int, error) {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return "", 0, fmt.Errorf("--%s %q: want HOST:PORT, such as 127.0.0.1:8080; port 0 picks a free one", flag, s)
	}
	n, err := strconv.Atoi(port)
	if err != nil || n < 0 || n > 65535 {
		return "", 0, fmt.Errorf("--%s %q: %q is not a port", flag, s, port)
	}
	return host, n, nil
}
