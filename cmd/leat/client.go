package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/leatstream/leat/schemas"
)

const defaultServer = "http://127.0.0.1:8080"

// client calls the API of a server.
type client struct {
	base  string
	token string
	http  *http.Client
}

// clientFile is the file of a user's defaults: <config folder>/leat/client.yaml.
type clientFile struct {
	Server string `yaml:"server"`
	Token  string `yaml:"token"`
	CA     string `yaml:"ca"`
}

// dial resolves the server's address: flag, environment, file, default. It opens no connection.
func (e *env) dial() (*client, error) {
	var f clientFile
	if dir, err := os.UserConfigDir(); err == nil {
		path := filepath.Join(dir, "leat", "client.yaml")
		if b, err := os.ReadFile(path); err == nil {
			if err := yaml.Unmarshal(b, &f); err != nil {
				return nil, failed(fmt.Errorf("%s: %w", path, err))
			}
		}
	}
	first := func(vs ...string) string {
		for _, v := range vs {
			if v != "" {
				return v
			}
		}
		return ""
	}
	base := first(e.server, os.Getenv("LEAT_SERVER"), f.Server, defaultServer)
	if !strings.Contains(base, "://") {
		base = "http://" + base
	}
	u, err := url.Parse(base)
	if err != nil || u.Host == "" {
		return nil, &exitError{exitUsage, fmt.Errorf("server address %q: want http://HOST:PORT", base)}
	}
	c := &client{base: strings.TrimRight(base, "/"), token: first(e.token, os.Getenv("LEAT_TOKEN"), f.Token), http: &http.Client{}}
	if ca := first(e.ca, os.Getenv("LEAT_CA"), f.CA); ca != "" {
		if err := c.trust(ca); err != nil {
			return nil, failed(err)
		}
	}
	return c, nil
}

// trust takes certificates of a PEM file, and no others, as those that sign the server's.
func (c *client) trust(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(b) {
		return fmt.Errorf("--ca %s: no PEM certificate in it", path)
	}
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	c.http.Transport = t
	return nil
}

// call sends in as JSON (nil: no body) and reads the reply into out (nil: dropped).
func (c *client) call(ctx context.Context, method, path string, query url.Values, in, out any) error {
	var body io.Reader
	h := http.Header{}
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return failed(err)
		}
		body = bytes.NewReader(b)
		h.Set("Content-Type", "application/json")
	}
	r, err := c.send(ctx, method, path, query, h, body)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	if out == nil {
		_, err = io.Copy(io.Discard, r.Body)
		return failed(err)
	}
	return decode(r.Body, out)
}

// decode reads one JSON value of a reply.
func decode(r io.Reader, out any) error {
	if err := json.NewDecoder(r).Decode(out); err != nil {
		return failed(fmt.Errorf("the server's answer: %w", err))
	}
	return nil
}

// send makes one request and returns the reply of a success; the caller closes its body. A refusal comes back as the
// *schemas.Error that it is.
func (c *client) send(ctx context.Context, method, path string, query url.Values, h http.Header, body io.Reader) (*http.Response, error) {
	u := c.base + path
	if len(query) > 0 {
		u += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, u, body)
	if err != nil {
		return nil, failed(err)
	}
	for k, v := range h {
		req.Header[k] = v
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	r, err := c.http.Do(req)
	if err != nil {
		var op *net.OpError
		if errors.As(err, &op) && op.Op == "dial" {
			return nil, failed(fmt.Errorf("no server answers at %s: start one with 'leat serve', or name another with --server", c.base))
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		var cert *tls.CertificateVerificationError
		if errors.As(err, &cert) {
			err = fmt.Errorf("the certificate of %s is not trusted: name the one that signed it with --ca FILE (%w)", c.base, cert.Err)
		}
		return nil, failed(err)
	}
	if r.StatusCode < 300 {
		return r, nil
	}
	defer r.Body.Close()
	b, _ := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	var e struct {
		Error, Message, Kind, ID, Field string
	}
	if json.Unmarshal(b, &e) != nil || e.Error+e.Message == "" {
		return nil, failed(fmt.Errorf("%s %s: %s", method, path, r.Status))
	}
	if e.Error == "" {
		e.Error = e.Message
	}
	return nil, &schemas.Error{Kind: schemas.ParseKind(e.Kind), ID: e.ID, Err: errors.New(e.Error)}
}

// waitReady waits until the server answers that it is ready.
func (c *client) waitReady(ctx context.Context, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		err := c.call(ctx, http.MethodGet, "/v2/health/ready", nil, nil, nil)
		if err == nil {
			return nil
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return err
		}
	}
}

// stream reads a reply of NDJSON line by line until it ends or the user has seen enough. With --json lines go out as
// they are.
func (e *env) stream(ctx context.Context, path string, q url.Values, line func([]byte) error) error {
	c, err := e.dial()
	if err != nil {
		return err
	}
	r, err := c.send(ctx, http.MethodGet, path, q, nil, nil)
	if err != nil {
		return ended(err)
	}
	defer r.Body.Close()
	in := bufio.NewReaderSize(r.Body, 64<<10)
	for {
		b, err := in.ReadBytes('\n')
		if len(b) > 1 && err == nil {
			if e.json {
				_, err = e.out.Write(b)
			} else {
				err = line(b)
			}
			if err != nil {
				return failed(err)
			}
		}
		switch {
		case err == io.EOF && len(b) == 0, ctx.Err() != nil:
			return nil
		case err != nil:
			return failed(fmt.Errorf("the server ended its answer early: %w", err))
		}
	}
}
