package broker

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// Secure gives every broker three listeners beside the plaintext one, with certificates of an authority made for it, and
// an authorizer. On the plaintext listener everybody may do everything; on the others only what ACLs allow.
func Secure() Option { return func(o *options) { o.secure = true } }

// The users that the listeners with SASL know by PLAIN. SCRAM credentials are made by whoever wants them.
const (
	User     = "alice"
	Password = "alice-secret"
)

// The listeners of a secure broker, by the distance of their ports from the plaintext one.
const (
	portTLS     = 2
	portSASLTLS = 3
	portSASL    = 4
)

// TLSAddr returns host:port of broker i's listener that wants TLS and a client certificate.
func (c *Cluster) TLSAddr(i int) string { return c.addr(i, portTLS) }

// SASLTLSAddr returns host:port of broker i's listener that wants TLS and SASL.
func (c *Cluster) SASLTLSAddr(i int) string { return c.addr(i, portSASLTLS) }

// SASLAddr returns host:port of broker i's listener that wants SASL, without TLS.
func (c *Cluster) SASLAddr(i int) string { return c.addr(i, portSASL) }

// CAFile is the authority's certificate.
func (c *Cluster) CAFile() string { return filepath.Join(c.dir, "ca.pem") }

// ClientFiles are a client's certificate and key: user CN=carol.
func (c *Cluster) ClientFiles() (cert, key string) {
	return filepath.Join(c.dir, "client.pem"), filepath.Join(c.dir, "client.key")
}

// secure writes certificates into the folder and returns the lines of server.properties that use them.
func secure(dir string) ([]string, error) {
	if err := certificates(dir); err != nil {
		return nil, fmt.Errorf("broker: certificates: %w", err)
	}
	lines := []string{
		"listeners=PLAINTEXT://127.0.0.1:@PORT@,CONTROLLER://127.0.0.1:@PORT+1@,TLS://127.0.0.1:@PORT+2@,SASLTLS://127.0.0.1:@PORT+3@,SASLPLAIN://127.0.0.1:@PORT+4@",
		"advertised.listeners=PLAINTEXT://127.0.0.1:@PORT@,TLS://127.0.0.1:@PORT+2@,SASLTLS://127.0.0.1:@PORT+3@,SASLPLAIN://127.0.0.1:@PORT+4@",
		"listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,TLS:SSL,SASLTLS:SASL_SSL,SASLPLAIN:SASL_PLAINTEXT",
		"inter.broker.listener.name=PLAINTEXT",
		"ssl.keystore.type=PEM", "ssl.keystore.location=" + filepath.Join(dir, "broker.pem"),
		"ssl.truststore.type=PEM", "ssl.truststore.location=" + filepath.Join(dir, "ca.pem"),
		"listener.name.tls.ssl.client.auth=required",
		"sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
		"authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
		"super.users=User:ANONYMOUS",
	}
	for _, l := range []string{"sasltls", "saslplain"} {
		lines = append(lines, fmt.Sprintf(`listener.name.%s.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_%s="%s";`, l, User, Password))
		for _, m := range []string{"scram-sha-256", "scram-sha-512"} {
			lines = append(lines, fmt.Sprintf("listener.name.%s.%s.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;", l, m))
		}
	}
	return lines, nil
}

// certificates makes an authority, a broker of 127.0.0.1 and localhost, and a client.
func certificates(dir string) error {
	caKey, caCert, caPEM, _, err := certificate(nil, nil, "Leat test authority")
	if err != nil {
		return err
	}
	_, _, serverPEM, serverKey, err := certificate(caKey, caCert, "broker")
	if err != nil {
		return err
	}
	_, _, clientPEM, clientKey, err := certificate(caKey, caCert, "carol")
	if err != nil {
		return err
	}
	for name, content := range map[string][]byte{
		"ca.pem": caPEM, "broker.pem": bytes.Join([][]byte{serverKey, serverPEM, caPEM}, nil), "client.pem": clientPEM, "client.key": clientKey,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// certificate makes a key and its certificate, signed by the authority or, without one, by itself as an authority.
func certificate(by *ecdsa.PrivateKey, authority *x509.Certificate, name string) (key *ecdsa.PrivateKey, cert *x509.Certificate, certPEM, keyPEM []byte, err error) {
	if key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 100))
	if err != nil {
		return
	}
	t := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	if by == nil {
		by, authority = key, t
		t.IsCA, t.BasicConstraintsValid = true, true
		t.KeyUsage |= x509.KeyUsageCertSign
	}
	der, err := x509.CreateCertificate(rand.Reader, t, authority, &key.PublicKey, by)
	if err != nil {
		return
	}
	if cert, err = x509.ParseCertificate(der); err != nil {
		return
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return
	}
	certPEM = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
	return key, cert, certPEM, keyPEM, nil
}
