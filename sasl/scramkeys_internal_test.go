package sasl

import (
	"encoding/base64"
	"fmt"
	"hash"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/xdg-go/scram"
)

// serverWithSalt returns a server on which everybody has the password "secret".
func serverWithSalt(t *testing.T, hash scram.HashGeneratorFcn, salt func() string) *scram.Server {
	server, err := hash.NewServer(func(name string) (scram.StoredCredentials, error) {
		client, err := hash.NewClient(name, "secret", "")
		if err != nil {
			return scram.StoredCredentials{}, err
		}
		return client.GetStoredCredentialsWithError(scram.KeyFactors{Salt: salt(), Iters: 4096})
	})
	require.NoError(t, err)
	return server
}

// loginTo carries out an exchange.
func loginTo(server *scram.Server, c Client) error {
	conv := server.NewConversation()
	_, response, err := c.Start()
	for !conv.Done() && err == nil {
		challenge, _ := conv.Step(string(response))
		response, err = c.Next([]byte(challenge))
	}
	return err
}

// A keyServer counts how often its clients derive keys. Its salt can change.
type keyServer struct {
	t      *testing.T
	server *scram.Server
	salt   string
	hashes int
}

func newKeyServer(t *testing.T) *keyServer {
	s := &keyServer{t: t, salt: "salt"}
	const mech = "SCRAM-SHA-256"
	plain := scramHashes[mech]
	scramHashes[mech] = func() hash.Hash {
		s.hashes++
		return plain()
	}
	t.Cleanup(func() { scramHashes[mech] = plain })
	s.server = serverWithSalt(t, scram.SHA256, func() string { return s.salt })
	return s
}

// login carries out an exchange, and reports whether keys had to be derived.
func (s *keyServer) login(c Client) (derived bool, err error) {
	s.hashes = 0
	err = loginTo(s.server, c)
	return s.hashes > 10, err
}

// loginNewClient logs in with a new Client.
func (s *keyServer) loginNewClient(keys *ScramKeys, name, password string) (derived bool, err error) {
	c, err := keys.Scram("scram-sha-256", name, password)
	require.NoError(s.t, err)
	return s.login(c)
}

func TestScramKeys(t *testing.T) {
	s := newKeyServer(t)
	keys := NewScramKeys(10)
	for i, step := range []struct {
		name, password, salt string
		derived, refused     bool
	}{
		{"ann", "secret", "salt", true, false},
		{"ann", "secret", "salt", false, false},
		{"bob", "secret", "salt", true, false},
		{"bob", "secret", "salt", false, false},
		{"ann", "wrong", "salt", true, true},
		{"ann", "wrong", "salt", true, true}, // no keys are remembered, because the server has not proved itself
		{"ann", "secret", "salt", false, false},
		{"ann", "secret", "other", true, false}, // not remembered, because this client already has keys for two salts
		{"ann", "secret", "other", true, false},
		{"ann", "secret", "other", false, false},
		{"bob", "secret", "salt", false, false},
	} {
		s.salt = step.salt
		derived, err := s.loginNewClient(keys, step.name, step.password)
		assert.Equal(t, step.refused, err != nil, "step %d: %v", i, err)
		assert.Equal(t, step.derived, derived, "step %d", i)
	}
}

// If the salt changes many times, ScramKeys does not use more memory: it has only the keys for the newest salt.
func TestScramKeysNewestSalt(t *testing.T) {
	s := newKeyServer(t)
	keys := NewScramKeys(10)
	client, err := keys.Scram("SCRAM-SHA-256", "ann", "secret")
	require.NoError(t, err)
	clients := map[*scram.Client]bool{}
	for i := range 6 {
		s.salt = fmt.Sprint("salt", i/2)
		_, err := s.login(client)
		require.NoError(t, err)
		clients[client.(*scramClient).inner()] = true
		if known := keys.get(scramAccount{"SCRAM-SHA-256", "ann", "secret"}); known.client != nil {
			assert.Equal(t, "s="+base64.StdEncoding.EncodeToString([]byte(s.salt))+",i=4096", known.salt)
		}
	}
	assert.Len(t, clients, 3, "one for each salt")
}

func TestScramKeysLimit(t *testing.T) {
	s := newKeyServer(t)
	for _, tt := range []struct {
		keys *ScramKeys
		want int
	}{{NewScramKeys(3), 3}, {NewScramKeys(0), 0}, {NewScramKeys(-1), 0}, {new(ScramKeys), 0}} {
		for i := range 5 {
			_, err := s.loginNewClient(tt.keys, fmt.Sprint("user", i), "secret")
			require.NoError(t, err)
		}
		assert.Equal(t, tt.want, tt.keys.Len())
	}
	assert.Zero(t, (*ScramKeys)(nil).Len())
	for range 2 {
		derived, err := s.loginNewClient(nil, "ann", "secret")
		require.NoError(t, err)
		assert.True(t, derived, "a nil *ScramKeys remembers nothing")
	}
}

// Two sessions share a client, and one of them makes the client derive keys for a second salt. The
// other session must not store this client again. Otherwise, if a server changes its salt each time,
// the client would hold more and more keys.
func TestScramKeysShared(t *testing.T) {
	s := newKeyServer(t)
	keys := NewScramKeys(10)
	_, err := s.loginNewClient(keys, "ann", "secret")
	require.NoError(t, err)
	first, err := keys.Scram("SCRAM-SHA-256", "ann", "secret")
	require.NoError(t, err)

	s.salt = "other"
	_, err = s.loginNewClient(keys, "ann", "secret")
	require.NoError(t, err)
	assert.Zero(t, keys.Len())

	s.salt = "salt"
	derived, err := s.login(first)
	require.NoError(t, err)
	assert.False(t, derived)
	assert.Zero(t, keys.Len())
}

// If the server sends another salt, a session removes the key with which it began. It does not
// remove a key that another session has stored since then.
func TestScramKeysForgetOwnKey(t *testing.T) {
	s := newKeyServer(t)
	keys := NewScramKeys(10)
	_, err := s.loginNewClient(keys, "ann", "secret")
	require.NoError(t, err)
	var clients [2]Client
	for i := range clients {
		clients[i], err = keys.Scram("SCRAM-SHA-256", "ann", "secret")
		require.NoError(t, err)
	}
	s.salt = "other"
	_, err = s.login(clients[0])
	require.NoError(t, err)
	_, err = s.loginNewClient(keys, "ann", "secret")
	require.NoError(t, err)
	require.Equal(t, 1, keys.Len())
	_, err = s.login(clients[1])
	require.NoError(t, err)
	assert.Equal(t, 1, keys.Len())
}

// The server chooses the salt. A long one is not remembered.
func TestScramKeysLongSalt(t *testing.T) {
	s := newKeyServer(t)
	for _, tt := range []struct{ octets, remembered int }{{64, 1}, {40 << 10, 0}} {
		keys := NewScramKeys(10)
		s.salt = strings.Repeat("x", tt.octets)
		for range 2 {
			_, err := s.loginNewClient(keys, "ann", "secret")
			require.NoError(t, err)
		}
		assert.Equal(t, tt.remembered, keys.Len(), "%d octets", tt.octets)
	}
}

// A mechanism uses the same keys with and without -PLUS.
func TestScramKeysForms(t *testing.T) {
	keys := NewScramKeys(1)
	keys.put(scramAccount{"SCRAM-SHA-256", "ann", "secret"}, scramKey{&scram.Client{}, "x"})
	for _, newClient := range []func() (Client, error){
		func() (Client, error) { return keys.Scram("SCRAM-SHA-256", "ann", "secret") },
		func() (Client, error) { return keys.Scram("SCRAM-SHA-256-PLUS", "ann", "secret") },
		func() (Client, error) { return keys.ScramNoPlus("SCRAM-SHA-256", "ann", "secret") },
	} {
		c, err := newClient()
		require.NoError(t, err)
		assert.Equal(t, "x", c.(*scramClient).salt)
	}
	for _, other := range []string{"SCRAM-SHA-1", "SCRAM-SHA-512"} {
		c, err := keys.Scram(other, "ann", "secret")
		require.NoError(t, err)
		assert.Empty(t, c.(*scramClient).salt, other)
	}
}

func TestScramKeysHidden(t *testing.T) {
	keys := NewScramKeys(1)
	const secret = "Canary-9f3b"
	keys.put(scramAccount{"SCRAM-SHA-256", "ann", secret}, scramKey{salt: secret})
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		for _, v := range []any{keys, struct{ k *ScramKeys }{keys}} {
			assert.NotContains(t, fmt.Sprintf(verb, v), secret)
		}
	}
}

// Many goroutines log in while the salt changes.
func TestScramKeysConcurrently(t *testing.T) {
	var logins atomic.Int64
	server := serverWithSalt(t, scram.SHA1, func() string { return fmt.Sprint(logins.Add(1) / 5) })
	keys := NewScramKeys(1)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range 8 {
				c, err := keys.Scram("SCRAM-SHA-1", fmt.Sprint("user", i%2), "secret")
				if assert.NoError(t, err) {
					assert.NoError(t, loginTo(server, c))
				}
			}
		})
	}
	wg.Wait()
	assert.LessOrEqual(t, keys.Len(), 1)
}
