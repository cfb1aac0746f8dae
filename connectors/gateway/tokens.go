package gateway

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"strings"

	"github.com/leatstream/leat/schemas"
	"github.com/leatstream/leat/schemas/api"
)

// Tokens are the bearer tokens that callers may present. Immutable.
type Tokens struct{ list []token }

// token keeps a digest: the text itself is not needed any more, and digests are of one length.
type token struct {
	sum       [32]byte
	scope     api.Scope
	principal string
}

// minToken is the shortest token taken: 22 characters of base64 are 128 random bits.
const minToken = 22

// ParseTokens reads a token file: one token a line as "TOKEN SCOPE PRINCIPAL", separated by blanks. TOKEN is at least 22
// printable characters, SCOPE is read, score or admin (each includes the one before), PRINCIPAL is the name that lineage
// records as the caller. Empty lines and lines that start with # are passed over. An error names the line, never the
// token.
func ParseTokens(b []byte) (*Tokens, error) {
	const op = "gateway.ParseTokens"
	t := &Tokens{}
	s := bufio.NewScanner(bytes.NewReader(b))
	for n := 1; s.Scan(); n++ {
		f := strings.Fields(s.Text())
		if len(f) == 0 || strings.HasPrefix(f[0], "#") {
			continue
		}
		if len(f) != 3 {
			return nil, schemas.Errorf(schemas.Invalid, op, "token file line %d: %d words, want TOKEN SCOPE PRINCIPAL", n, len(f))
		}
		if len(f[0]) < minToken || !printable(f[0]) {
			return nil, schemas.Errorf(schemas.Invalid, op, "token file line %d: want a token of at least %d printable characters (openssl rand -base64 32 makes one)", n, minToken)
		}
		scope := api.Scope(f[1])
		if rank(scope) == 0 {
			return nil, schemas.Errorf(schemas.Invalid, op, "token file line %d: scope %.20q: want read, score or admin", n, f[1])
		}
		if len(f[2]) > maxRequestID || !printable(f[2]) {
			return nil, schemas.Errorf(schemas.Invalid, op, "token file line %d: want a principal of at most %d printable characters", n, maxRequestID)
		}
		sum := sha256.Sum256([]byte(f[0]))
		if t.find(sum) != nil {
			return nil, schemas.Errorf(schemas.Invalid, op, "token file line %d: this token stands above already", n)
		}
		t.list = append(t.list, token{sum, scope, f[2]})
	}
	if err := s.Err(); err != nil {
		return nil, schemas.Errorf(schemas.Invalid, op, "token file: %w", err)
	}
	if len(t.list) == 0 {
		return nil, schemas.Errorf(schemas.Invalid, op, "token file: no token in it; nobody could call")
	}
	return t, nil
}

// find compares with every token, in a time that does not depend on how much of one was right.
func (t *Tokens) find(sum [32]byte) *token {
	var found *token
	for i := range t.list {
		if subtle.ConstantTimeCompare(sum[:], t.list[i].sum[:]) == 1 {
			found = &t.list[i]
		}
	}
	return found
}

func rank(s api.Scope) int {
	switch s {
	case api.Read:
		return 1
	case api.Score:
		return 2
	case api.Admin:
		return 3
	}
	return 0
}

// admit returns who the caller is, if it may do what needs the scope.
func (t *Tokens) admit(r *http.Request, need api.Scope) (principal string, err error) {
	const op = "gateway.admit"
	if t == nil || need == "" {
		return "", nil
	}
	scheme, text, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if text = strings.TrimSpace(text); !strings.EqualFold(scheme, "Bearer") || text == "" {
		return "", &schemas.Error{Op: op, Kind: schemas.Denied, Err: errNoToken}
	}
	k := t.find(sha256.Sum256([]byte(text)))
	if k == nil {
		return "", &schemas.Error{Op: op, Kind: schemas.Denied, Err: errBadToken}
	}
	if rank(k.scope) < rank(need) {
		return k.principal, schemas.Errorf(schemas.Denied, op, "this needs a token of scope %s, this one has %s", need, k.scope)
	}
	return k.principal, nil
}

func printable(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f {
			return false
		}
	}
	return s != ""
}
