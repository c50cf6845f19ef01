package pop3test

import (
	"errors"

	"github.com/xdg-go/scram"
)

// iterations is the lowest number of iterations that RFC 7677 section 4 allows.
const iterations = 4096

// The type credentials has the keys that a server stores for a user in place of the password.
type credentials = scram.StoredCredentials

// scramMechanism implements SCRAM (RFC 5802, RFC 7677). If plus is true, it uses channel binding (RFC 9266).
func scramMechanism(family string, hash scram.HashGeneratorFcn, plus bool) mechanism {
	return func(x *exchange) (string, error) {
		server, err := hash.NewServer(func(user string) (credentials, error) {
			return x.srv.scramCredentials(family, hash, user)
		})
		if err != nil {
			return "", err
		}
		conv, err := x.conversation(server, family, plus)
		if err != nil {
			return "", err
		}
		return x.converse(conv)
	}
}

// conversation decides whether channel binding is used. The client may say that the server has announced no -PLUS form.
// If the server has announced one, an attacker has changed the list in transit, and the login fails (RFC 5802 section
// 6).
func (x *exchange) conversation(
	server *scram.Server, family string, plus bool,
) (*scram.ServerConversation, error) {
	if !plus && !x.announces(family+"-PLUS") {
		return server.NewConversation(), nil
	}
	state := x.tlsState()
	if state == nil {
		return nil, errors.New("channel binding needs TLS")
	}
	binding, err := scram.NewTLSExporterBinding(state)
	if err != nil {
		return nil, errors.New("channel binding needs TLS 1.3")
	}
	if plus {
		return server.NewConversationWithChannelBindingRequired(binding), nil
	}
	return server.NewConversationWithChannelBinding(binding), nil
}

// converse runs the exchange. The server's signature is sent in a challenge, because +OK cannot contain it (RFC
// 5034 section 4).
func (x *exchange) converse(conv *scram.ServerConversation) (string, error) {
	response, err := x.first()
	for err == nil && !conv.Done() {
		challenge, stepErr := conv.Step(response)
		if stepErr != nil {
			return "", errCredentials
		}
		response, err = x.ask(challenge)
	}
	switch {
	case err != nil:
		return "", err
	case response != "":
		return "", errFormat
	}
	if user, authzID := conv.Username(), conv.AuthzID(); authzID == "" || authzID == user {
		return user, nil
	}
	return "", errCredentials
}

// scramCredentials computes the credentials of a user only once, because the computation is slow on purpose.
func (s *Server) scramCredentials(family string, hash scram.HashGeneratorFcn, user string) (credentials, error) {
	password, known := s.password(user)
	if !known {
		return credentials{}, errCredentials
	}
	key := family + " " + user
	s.mu.Lock()
	defer s.mu.Unlock()
	if c, ok := s.scrams[key]; ok {
		return c, nil
	}
	client, err := hash.NewClient(user, password, "")
	if err != nil {
		return credentials{}, err
	}
	factors := scram.KeyFactors{Salt: "salt of " + user, Iters: iterations}
	c, err := client.GetStoredCredentialsWithError(factors)
	if err == nil {
		s.scrams[key] = c
	}
	return c, err
}
