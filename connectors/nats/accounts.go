package nats

import (
	"crypto/subtle"
	"net"
	"sync"

	natsserver "github.com/nats-io/nats-server/v2/server"
)

// The two accounts of the embedded server.
const (
	accountLeat = "LEAT"
	accountApp  = "APP"
)

// doorkeeper decides which account a connection belongs to. Allow-lists only: what is not named here is refused.
type doorkeeper struct {
	server    *Server
	leat, app *natsserver.Account

	mu   sync.Mutex
	open map[string]bool // consumers that users may pull from, stream.consumer
}

// Check implements natsserver.Authentication.
//
// A connection without any credentials is a user of APP if it comes from this machine and no token is configured: APP
// can name nothing internal, so this opens nothing but scoring, topics and the read-only operations. (The server's own
// NoAuthUser would give that account to whoever presents nothing on any address; this looks at the address too.)
func (d *doorkeeper) Check(c natsserver.ClientAuthentication) bool {
	if c.Kind() != natsserver.CLIENT {
		return false // no leaf nodes, routers or gateways
	}
	o := c.GetOpts()
	creds := &d.server.creds
	switch {
	case o.Username != "" && equal(o.Username, creds.Leat.User):
		if !equal(o.Password, creds.Leat.Password) {
			return false
		}
		c.RegisterUser(&natsserver.User{Username: "leat", Account: d.leat})
		return true
	case o.Username != "" && equal(o.Username, creds.Front.User):
		if !equal(o.Password, creds.Front.Password) {
			return false
		}
		c.RegisterUser(&natsserver.User{Username: "front", Account: d.app})
		return true
	case d.server.cfg.Token != "":
		if !equal(o.Token, d.server.cfg.Token) && !equal(o.Password, d.server.cfg.Token) {
			return false
		}
	case !local(c.RemoteAddress()):
		return false
	}
	c.RegisterUser(&natsserver.User{Username: "app", Account: d.app, Permissions: appPermissions()})
	return true
}

// openConsumer lets users of APP pull from one consumer of LEAT and acknowledge to it. The server brings the messages
// by itself, with their own subjects and places. Imports name consumers one by one, because a wildcard cannot say "those
// whose names begin with app-", and any other consumer belongs to a group of ours.
func (d *doorkeeper) openConsumer(stream, consumer string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	name := stream + "." + consumer
	if d.open[name] {
		return nil
	}
	if err := d.app.AddServiceImport(d.leat, subjectDoor+"CONSUMER.MSG.NEXT."+name, apiPull+name); err != nil {
		return err
	}
	if err := d.app.AddServiceImport(d.leat, ackPrefix+name+".>", ackPrefix+name+".>"); err != nil {
		return err
	}
	if d.open == nil {
		d.open = map[string]bool{}
	}
	d.open[name] = true
	return nil
}

func equal(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

// local: an in-process connection has no TCP address and only this process can make one.
func local(a net.Addr) bool {
	t, ok := a.(*net.TCPAddr)
	return !ok || t.IP.IsLoopback()
}

// appPermissions is what a user of APP may do. Subscribing to what we serve is not in it: nobody can answer in a
// pipeline's name, or listen to the requests of others.
func appPermissions() *natsserver.Permissions {
	return &natsserver.Permissions{
		Publish: &natsserver.SubjectPermission{Allow: []string{
			subjectScore + "*",
			subjectTopic + ">",
			subjectFeedback + ">",
			subjectBucket + ">",
			subjectAPI + ">",
			"$SRV.>",
			"$JS.API.STREAM.INFO.*",
			"$JS.API.CONSUMER.CREATE.>",
			"$JS.API.CONSUMER.INFO.*.*",
			"$JS.API.CONSUMER.DELETE.*.*",
			"$JS.API.CONSUMER.MSG.NEXT.*.*",
			"$JS.API.DIRECT.GET.>",
			subjectDoor + ">",
			"$JS.ACK.>",
		}},
		Subscribe: &natsserver.SubjectPermission{Allow: []string{"_INBOX.>", "_INBOX_*.>"}},
	}
}
