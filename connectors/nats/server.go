package nats

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"

	"github.com/leatstream/leat/schemas"
)

// Server is an embedded NATS server with JetStream. Make it with NewServer, then Start; Close ends it. It may not be
// started again: make another one on the same Dir.
type Server struct {
	cfg   ServerConfig
	log   *slog.Logger
	ns    *natsserver.Server
	creds serverCredentials
	limit int64
	door  *doorkeeper
	id    string // random for each start: tells members of a dead server from living ones
}

// serverCredentials are made once for a Dir and kept there, so that other processes of the same owner can join.
type serverCredentials struct {
	Leat  Credentials `json:"leat"`  // account LEAT
	Front Credentials `json:"front"` // account APP, without the limits of users
}

// credentialsFile is readable by its owner alone.
const credentialsFile = "credentials.json"

// NewServer checks the configuration. It does no I/O. A nil logger discards.
func NewServer(c ServerConfig, log *slog.Logger) (*Server, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Server{cfg: c, log: log.With("part", "nats-server"), id: randomHex(8)}, nil
}

// Start opens the store and listens. It returns when clients can connect, Unavailable if ctx ends first.
func (s *Server) Start(ctx context.Context) error {
	const op = "nats.Server.Start"
	if s.ns != nil {
		return schemas.Errorf(schemas.Internal, op, "started twice")
	}
	if err := os.MkdirAll(s.cfg.Dir, 0o700); err != nil {
		return schemas.Errorf(schemas.Unavailable, op, "store folder: %w", err)
	}
	if err := s.loadCredentials(); err != nil {
		return err
	}
	s.limit = s.cfg.StoreLimit
	if s.limit == 0 {
		n, err := diskShare(s.cfg.Dir)
		if err != nil {
			return schemas.Errorf(schemas.Unavailable, op, "size of the disk: %w", err)
		}
		s.limit = n
	}
	door := &doorkeeper{server: s}
	opts := s.options(door)
	ns, err := natsserver.NewServer(opts)
	if err != nil {
		return schemas.Errorf(schemas.Unavailable, op, "embedded server: %w", err)
	}
	ns.SetLoggerV2(serverLogger{s.log}, false, false, false)
	if door.leat, err = ns.LookupAccount(accountLeat); err == nil {
		door.app, err = ns.LookupAccount(accountApp)
	}
	if err == nil {
		// In an account without JetStream the server itself would answer these, with "not enabled".
		err = door.app.AddMapping("$JS.API.>", subjectDoor+">")
	}
	// What may be imported, one consumer at a time: see openConsumer.
	if err == nil {
		err = door.leat.AddServiceExportWithResponse(apiPull+"*.*", natsserver.Streamed, []*natsserver.Account{door.app})
	}
	if err == nil {
		err = door.leat.AddServiceExport(ackPrefix+"*.*.>", []*natsserver.Account{door.app})
	}
	if err != nil {
		return schemas.Errorf(schemas.Internal, op, "accounts: %w", err)
	}
	s.door = door
	s.ns = ns
	ns.Start()
	wait := 10 * time.Second
	if d, ok := ctx.Deadline(); ok {
		wait = min(wait, time.Until(d))
	}
	// JetStream is enabled for LEAT alone, and before anybody connects to it.
	if err := door.leat.EnableJetStream(nil, nil); err != nil {
		s.Close()
		return schemas.Errorf(schemas.Unavailable, op, "store in %s: %w", s.cfg.Dir, err)
	}
	if !ns.ReadyForConnections(wait) {
		s.Close()
		return schemas.Errorf(schemas.Unavailable, op, "cannot listen on %s port %d: is it taken?", s.cfg.Host, s.cfg.Port)
	}
	return nil
}

func (s *Server) options(door *doorkeeper) *natsserver.Options {
	port := s.cfg.Port
	if port == 0 {
		port = natsserver.RANDOM_PORT
	}
	o := &natsserver.Options{
		ServerName:                 "leat",
		Host:                       s.cfg.Host,
		Port:                       port,
		NoSigs:                     true,
		JetStream:                  true,
		StoreDir:                   s.cfg.Dir,
		SyncAlways:                 s.cfg.Sync,
		JetStreamMaxMemory:         256 << 20,
		JetStreamMaxStore:          1 << 60, // the client reserves against StoreLimit; a limit here could refuse to recover a stream
		MaxPayload:                 int32(s.cfg.MaxPayload),
		MaxPending:                 256 << 20,
		NoFastProducerStall:        true, // a slow shadow must not slow a primary
		DisableShortFirstPing:      true,
		Accounts:                   []*natsserver.Account{natsserver.NewAccount(accountLeat), natsserver.NewAccount(accountApp)},
		CustomClientAuthentication: door,
		MaxConn:                    64 << 10,
	}
	if s.cfg.TLS != nil {
		o.TLSConfig, o.TLS, o.TLSTimeout = s.cfg.TLS, true, 5
	}
	return o
}

// URL is what users connect to.
func (s *Server) URL() string { return s.ns.ClientURL() }

// Port is the port it listens on.
func (s *Server) Port() int {
	if a, ok := s.ns.Addr().(*net.TCPAddr); ok {
		return a.Port
	}
	return 0
}

// Credentials open LEAT and the front side of APP to other processes of the same owner.
func (s *Server) Credentials() (leat, front Credentials) { return s.creds.Leat, s.creds.Front }

// StoreLimit is how many bytes all streams together may reserve.
func (s *Server) StoreLimit() int64 { return s.limit }

// Close stops the server and waits until the store is closed. Idempotent; legal without Start.
func (s *Server) Close() {
	if s.ns == nil {
		return
	}
	s.ns.Shutdown()
	s.ns.WaitForShutdown()
}

// ReadCredentials reads what a server on dir made, for another process of the same owner.
func ReadCredentials(dir string) (leat, front Credentials, err error) {
	b, err := os.ReadFile(filepath.Join(dir, credentialsFile))
	if err != nil {
		return leat, front, schemas.Errorf(schemas.NotFound, "nats.ReadCredentials", "no credentials in %s: %w", dir, err)
	}
	var c serverCredentials
	if err := json.Unmarshal(b, &c); err != nil {
		return leat, front, schemas.Errorf(schemas.Invalid, "nats.ReadCredentials", "%s: %w", credentialsFile, err)
	}
	return c.Leat, c.Front, nil
}

func (s *Server) loadCredentials() error {
	var err error
	s.creds.Leat, s.creds.Front, err = ReadCredentials(s.cfg.Dir)
	if err == nil && s.creds.Leat.Password != "" && s.creds.Front.Password != "" {
		return nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	s.creds = serverCredentials{
		Leat:  Credentials{User: "leat-" + randomHex(8), Password: randomHex(32)},
		Front: Credentials{User: "front-" + randomHex(8), Password: randomHex(32)},
	}
	b, err := json.Marshal(s.creds)
	if err == nil {
		tmp := filepath.Join(s.cfg.Dir, credentialsFile+".tmp")
		if err = os.WriteFile(tmp, b, 0o600); err == nil {
			err = os.Rename(tmp, filepath.Join(s.cfg.Dir, credentialsFile))
		}
	}
	if err != nil {
		return schemas.Errorf(schemas.Unavailable, "nats.Server.Start", "write credentials: %w", err)
	}
	return nil
}

func randomHex(n int) string {
	b := make([]byte, n)
	rand.Read(b) // never fails since Go 1.24
	return hex.EncodeToString(b)
}
