package broker

import (
	"context"
	"crypto/pbkdf2"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"hash"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
)

// iterations are the fewest that brokers take.
const iterations = 4096

// AddUser makes a user of a secure cluster whom both kinds of SCRAM know.
func (c *Cluster) AddUser(t testing.TB, name, password string) {
	t.Helper()
	salt := []byte("salt of " + name)
	for m, h := range map[kafka.ScramMechanism]func() hash.Hash{kafka.ScramMechanismSha256: sha256.New, kafka.ScramMechanismSha512: sha512.New} {
		salted, err := pbkdf2.Key(h, password, salt, iterations, h().Size())
		if err != nil {
			t.Fatal(err)
		}
		req := &kafka.AlterUserScramCredentialsRequest{Upsertions: []kafka.UserScramCredentialsUpsertion{
			{Name: name, Mechanism: m, Iterations: iterations, Salt: salt, SaltedPassword: salted}}}
		c.administer(t, func(ctx context.Context, admin *kafka.Client) error { // a user is altered once in a request
			r, err := admin.AlterUserScramCredentials(ctx, req)
			if err != nil {
				return err
			}
			for _, one := range r.Results {
				err = errors.Join(err, one.Error)
			}
			return err
		})
	}
}

// Rights are what docs/kafka.md says a server needs, on names that begin with its prefix and on the cluster.
var Rights = map[kafka.ResourceType][]kafka.ACLOperationType{
	kafka.ResourceTypeCluster: {kafka.ACLOperationTypeDescribe},
	kafka.ResourceTypeTopic: {kafka.ACLOperationTypeAlterConfigs, kafka.ACLOperationTypeCreate, kafka.ACLOperationTypeDelete, kafka.ACLOperationTypeDescribe, kafka.ACLOperationTypeDescribeConfigs,
		kafka.ACLOperationTypeRead, kafka.ACLOperationTypeWrite},
	kafka.ResourceTypeGroup:           {kafka.ACLOperationTypeDelete, kafka.ACLOperationTypeDescribe, kafka.ACLOperationTypeRead},
	kafka.ResourceTypeTransactionalID: {kafka.ACLOperationTypeDescribe, kafka.ACLOperationTypeWrite},
}

// Allow gives a principal ("User:alice") rights on names that begin with a prefix; those on the cluster have no name.
func (c *Cluster) Allow(t testing.TB, principal, prefix string, rights map[kafka.ResourceType][]kafka.ACLOperationType) {
	t.Helper()
	req := &kafka.CreateACLsRequest{}
	for resource, ops := range rights {
		name, pattern := prefix, kafka.PatternTypePrefixed
		if resource == kafka.ResourceTypeCluster {
			name, pattern = "kafka-cluster", kafka.PatternTypeLiteral
		}
		for _, op := range ops {
			req.ACLs = append(req.ACLs, kafka.ACLEntry{ResourceType: resource, ResourceName: name, ResourcePatternType: pattern,
				Principal: principal, Host: "*", Operation: op, PermissionType: kafka.ACLPermissionTypeAllow})
		}
	}
	c.administer(t, func(ctx context.Context, admin *kafka.Client) error {
		r, err := admin.CreateACLs(ctx, req)
		if err != nil {
			return err
		}
		return errors.Join(r.Errors...)
	})
}

// administer makes a call as who may do everything.
func (c *Cluster) administer(t testing.TB, call func(context.Context, *kafka.Client) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	tr := &kafka.Transport{}
	defer tr.CloseIdleConnections()
	if err := call(ctx, &kafka.Client{Addr: kafka.TCP(c.Addrs()...), Transport: tr}); err != nil {
		t.Fatal(err)
	}
}
