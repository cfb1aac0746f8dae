package gateway

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/leatstream/leat/schemas"
)

const (
	readToken  = "read-token-of-enough-characters"
	scoreToken = "score-token-of-enough-characters"
	adminToken = "admin-token-of-enough-characters"
)

func writeTokens(t *testing.T) string {
	path := filepath.Join(t.TempDir(), "tokens")
	text := "# for the test\n\n" + readToken + " read  ann\n" + scoreToken + "\tscore bob\n" + adminToken + " admin eve\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestTokens(t *testing.T) {
	url, _, _ := start(t, func(c *Config, d *Deps) {
		c.TokenFile = writeTokens(t)
		d.Metrics = http.NotFoundHandler()
	})
	paths := []struct {
		method, path, body string
		need               int // 0 open, 1 read, 2 score, 3 admin
	}{
		{"GET", "/v2/health/live", "", 0},
		{"GET", "/v2/health/ready", "", 0},
		{"GET", "/v2", "", 1},
		{"GET", "/v2/models/p", "", 1},
		{"GET", "/openapi.json", "", 1},
		{"GET", "/metrics", "", 1},
		{"GET", "/v1/things/a", "", 1},
		{"POST", "/v2/models/p/infer", "{}", 2},
		{"POST", "/v1/pipelines/p/score", "{}", 2},
		{"POST", "/v1/things", `{"name":"x"}`, 3},
		{"PUT", "/v1/things/a/content", "x", 3},
	}
	for rank, token := range []string{"", readToken, scoreToken, adminToken} {
		for _, p := range paths {
			var h []string
			if token != "" {
				h = []string{"Authorization", "Bearer " + token}
			}
			a := do(t, p.method, url+p.path, p.body, h...)
			switch {
			case rank >= p.need:
				if a.StatusCode == 401 || a.StatusCode == 403 {
					t.Errorf("rank %d %s %s: %d %s", rank, p.method, p.path, a.StatusCode, a.body)
				}
			case rank == 0:
				if a.StatusCode != 401 || a.Header.Get("Www-Authenticate") == "" || a.errorBody(t).Kind != "denied" {
					t.Errorf("no token, %s %s: %d %s", p.method, p.path, a.StatusCode, a.body)
				}
			case a.StatusCode != 403 || a.errorBody(t).Kind != "denied":
				t.Errorf("rank %d %s %s: %d %s", rank, p.method, p.path, a.StatusCode, a.body)
			}
		}
	}
	for _, bad := range []string{"Bearer", "Bearer ", "Basic " + adminToken, "Bearer " + adminToken + "x", "Bearer " + adminToken[:30], adminToken} {
		if a := do(t, "GET", url+"/v2", "", "Authorization", bad); a.StatusCode != 401 || strings.Contains(a.body, adminToken) {
			t.Errorf("%q: %d %s", bad, a.StatusCode, a.body)
		}
	}
	// Who the caller is comes from the token, never from the caller.
	h := seen(t, do(t, "POST", url+"/v2/models/p/infer", "{}", "Authorization", "bearer "+scoreToken, "Leat-Principal", "root", "Host", "any.example"))
	if h.Get(schemas.HeaderPrincipal) != "bob" || h.Get("Authorization") != "" {
		t.Errorf("%v", h)
	}
}

func TestTokenFileFaults(t *testing.T) {
	for _, text := range []string{
		"", "# nothing\n", "short read ann", adminToken + " admin", adminToken + " root ann", adminToken + " admin a b",
		adminToken + " admin ann\n" + adminToken + " read bob", adminToken + " admin \u00e9ve",
	} {
		_, err := ParseTokens([]byte(text))
		if schemas.KindOf(err) != schemas.Invalid || strings.Contains(err.Error(), adminToken) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func FuzzParseTokens(f *testing.F) {
	f.Add([]byte(adminToken + " admin eve\n# x\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if k, err := ParseTokens(b); (err == nil) == (k == nil) || err != nil && schemas.KindOf(err) != schemas.Invalid {
			t.Errorf("%v %v", k, err)
		}
	})
}

func FuzzBody(f *testing.F) {
	f.Add("gzip", []byte(pack("gzip", []byte("hello"))))
	f.Add("deflate", []byte(pack("zlib", []byte("hello"))))
	f.Add("deflate", []byte(pack("flate", []byte("hello"))))
	f.Fuzz(func(t *testing.T, name string, b []byte) {
		const limit = 1 << 12
		out, err := decompress([]string{name}, b, limit)
		if err == nil && len(out) > limit || err != nil && schemas.KindOf(err) != schemas.Invalid {
			t.Errorf("%d bytes, %v", len(out), err)
		}
	})
}

func TestConfig(t *testing.T) {
	if err := Default().Validate(); err != nil {
		t.Error(err)
	}
	for listen, ok := range map[string]bool{
		"127.0.0.1:0": true, "localhost:8080": true, "[::1]:1": true, "127.9.9.9:1": true,
		":8080": false, "0.0.0.0:8080": false, "[::]:1": false, "192.168.1.5:1": false, "example.org:1": false, "[::ffff:10.0.0.1]:1": false, "8080": false,
	} {
		c := Default()
		c.Listen = listen
		if err := c.Validate(); (err == nil) != ok {
			t.Errorf("%s: %v", listen, err)
		}
		c.TLSCert, c.TLSKey, c.TokenFile = "c", "k", "t"
		if err := c.Validate(); (err == nil) != (listen != "8080") {
			t.Errorf("%s with TLS and tokens: %v", listen, err)
		}
		c.TokenFile = ""
		if err := c.Validate(); (err == nil) != ok {
			t.Errorf("%s with TLS alone: %v", listen, err)
		}
	}
	c := Default()
	c.Listen = "0.0.0.0:8080"
	if err := c.Validate(); err == nil || !strings.Contains(err.Error(), "--tls-cert FILE, --tls-key FILE and --token-file FILE") {
		t.Errorf("the line does not say how: %v", err)
	}
	c.MaxBody, c.Timeout, c.TLSKey = 0, -1, "k"
	for _, field := range []string{"http.max_body", "http.timeout", "http.tls_cert"} {
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%s is not named: %v", field, err)
		}
	}
	if _, err := New(Default(), Deps{}); err == nil {
		t.Error("New without a Requester")
	}
	d := Deps{Requester: echo, Models: models{}, Operations: append(operations(), operations()[0])}
	if _, err := New(Default(), d); schemas.KindOf(err) != schemas.Invalid {
		t.Errorf("two operations at one place: %v", err)
	}
}

func TestListenFaults(t *testing.T) {
	_, s, _ := start(t, nil)
	c := Default()
	c.Listen = s.ln.Addr().String()
	for name, change := range map[string]func(*Config){
		"taken port":    func(*Config) {},
		"no token file": func(c *Config) { c.TokenFile = "/nonexistent/tokens" },
		"no cert":       func(c *Config) { c.TLSCert, c.TLSKey = "/nonexistent/c", "/nonexistent/k" },
	} {
		one := c
		change(&one)
		s, err := New(one, Deps{Requester: echo, Models: models{}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Listen(t.Context()); err == nil || schemas.KindOf(err) == schemas.Internal {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTLS(t *testing.T) {
	dir := t.TempDir()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, kind string, b []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	certFile, keyFile := write("cert.pem", "CERTIFICATE", der), write("key.pem", "PRIVATE KEY", keyDER)
	url, _, _ := start(t, func(c *Config, _ *Deps) { c.TLSCert, c.TLSKey, c.TokenFile = certFile, keyFile, writeTokens(t) })
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	for _, h2 := range []bool{false, true} {
		tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: h2, DisableKeepAlives: true}
		req, _ := http.NewRequestWithContext(t.Context(), "POST", strings.Replace(url, "http:", "https:", 1)+"/v2/models/p/infer", strings.NewReader("{}"))
		req.Header.Set("Authorization", "Bearer "+scoreToken)
		resp, err := (&http.Client{Transport: tr}).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		tr.CloseIdleConnections()
		if resp.StatusCode != 200 || (resp.ProtoMajor == 2) != h2 {
			t.Errorf("HTTP/2 %v: %s %d", h2, resp.Proto, resp.StatusCode)
		}
	}
}
