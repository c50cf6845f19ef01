package pop3

import (
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/seed-2d50cddb/pop3/sasl"
)

func TestLoginMethods(t *testing.T) {
	const plus = "SCRAM-SHA-256-PLUS"
	all := Capabilities{
		"USER": nil, "SASL": {"PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-1", "SCRAM-SHA-256", plus, "XOAUTH2"},
	}
	allTrue := loginPolicy{
		passwordOK: true, encrypted: true, verified: true, canBind: true, nameIsWord: true,
		asciiName: true, asciiPassword: true, hasTimestamp: true,
	}
	policy := func(caps Capabilities, change func(*loginPolicy)) loginPolicy {
		p := allTrue
		p.caps = caps
		if change != nil {
			change(&p)
		}
		return p
	}
	allow := func(names ...string) func(*loginPolicy) {
		return func(p *loginPolicy) { p.allowed = names }
	}
	inClear := func(p *loginPolicy) { p.encrypted, p.verified = false, false } // a connection that InsecureAuth allows
	for _, tt := range []struct {
		name string
		p    loginPolicy
		want []loginMethod
	}{
		{"the strongest first", policy(all, nil),
			[]loginMethod{plus, "SCRAM-SHA-256", "SCRAM-SHA-1", "PLAIN", "LOGIN", userPass}},
		{"R1-147 no binding", policy(all, func(p *loginPolicy) { p.canBind = false }),
			[]loginMethod{"SCRAM-SHA-256", "SCRAM-SHA-1", "PLAIN", "LOGIN", userPass}},
		{"lower case", policy(Capabilities{"SASL": {"plain"}}, nil), []loginMethod{"PLAIN"}},
		{"strongest hash", policy(Capabilities{"SASL": {"SCRAM-SHA-1", "SCRAM-SHA-512", "SCRAM-SHA-256"}}, nil),
			[]loginMethod{"SCRAM-SHA-512", "SCRAM-SHA-256", "SCRAM-SHA-1"}},
		{"R1-092 no capabilities", policy(nil, nil), []loginMethod{userPass}},
		{"R1-092 no capability for a login", policy(Capabilities{"UIDL": nil}, nil), []loginMethod{userPass}},
		{"R1-102 SASL without mechanisms", policy(Capabilities{"SASL": nil}, nil), nil},
		{"SASL without mechanisms, and USER", policy(Capabilities{"SASL": nil, "USER": nil}, nil),
			[]loginMethod{userPass}},
		{"H-189 the server lacks the allowed mechanism",
			policy(Capabilities{"SASL": {"PLAIN"}}, allow("SCRAM-SHA-256")), nil},
		{"allowed in lower case", policy(all, allow("scram-sha-256", "plain")),
			[]loginMethod{"SCRAM-SHA-256", "PLAIN"}},
		{"only the -PLUS form", policy(all, allow(plus)), []loginMethod{plus}},
		{"nothing is allowed", policy(all, func(p *loginPolicy) { p.allowed = []string{} }), nil},
		{"R1-150 CRAM-MD5 is not used by default", policy(Capabilities{"SASL": {"CRAM-MD5"}}, nil), nil},
		{"R1-150 CRAM-MD5 if named", policy(Capabilities{"SASL": {"CRAM-MD5"}}, allow("CRAM-MD5")),
			[]loginMethod{"CRAM-MD5"}},
		{"Q-19 APOP if named", policy(all, allow("APOP", "PLAIN")), []loginMethod{"PLAIN", apop}},
		{"R1-100 APOP without a timestamp", policy(all, func(p *loginPolicy) {
			p.allowed, p.hasTimestamp = []string{"APOP"}, false
		}), nil},
		{"R1-126 APOP and a name of more than ASCII", policy(all, func(p *loginPolicy) {
			p.allowed, p.asciiName = []string{"APOP"}, false
		}), nil},
		{"R1-126 APOP and more than ASCII", policy(all, func(p *loginPolicy) {
			p.allowed, p.asciiPassword = []string{"APOP"}, false
		}), nil},
		{"R1-140 in clear", policy(all, func(p *loginPolicy) { p.passwordOK = false }),
			[]loginMethod{plus, "SCRAM-SHA-256", "SCRAM-SHA-1"}},
		{"R1-122 in clear, USER only",
			policy(Capabilities{"USER": nil}, func(p *loginPolicy) { p.passwordOK = false }), nil},
		{"APOP in clear", policy(all, func(p *loginPolicy) { p.allowed, p.passwordOK = []string{"APOP"}, false }), nil},
		{"CRAM-MD5 in clear, if named",
			policy(all, func(p *loginPolicy) { p.allowed, p.passwordOK = []string{"CRAM-MD5"}, false }),
			[]loginMethod{"CRAM-MD5"}},
		{"R1-121 a space in the name", policy(all, func(p *loginPolicy) { p.nameIsWord = false }),
			[]loginMethod{plus, "SCRAM-SHA-256", "SCRAM-SHA-1", "PLAIN", "LOGIN"}},
		{"R1-151 more than ASCII", policy(all, func(p *loginPolicy) { p.asciiName = false }),
			[]loginMethod{plus, "SCRAM-SHA-256", "SCRAM-SHA-1", "PLAIN", "LOGIN"}},
		{"R1-151 more than ASCII, UTF8 USER",
			policy(Capabilities{"USER": nil, "UTF8": {"user"}}, func(p *loginPolicy) { p.asciiName = false }),
			[]loginMethod{userPass}},
		{"R1-151 more than ASCII, UTF8", policy(Capabilities{"USER": nil, "UTF8": nil}, func(p *loginPolicy) {
			p.asciiName = false
		}), nil},
		{"SASL without USER", policy(Capabilities{"SASL": {"PLAIN"}}, nil), []loginMethod{"PLAIN"}},
		{"C-035 USER is not tried before TLS", policy(Capabilities{"STLS": nil, "UIDL": nil}, inClear), nil},
		{"C-035 USER by its name", policy(Capabilities{"STLS": nil}, func(p *loginPolicy) {
			inClear(p)
			p.allowed = []string{"USER"}
		}), []loginMethod{userPass}},
		{"C-035 USER is announced", policy(Capabilities{"STLS": nil, "USER": nil}, inClear), []loginMethod{userPass}},
		{"C-035 STLS after TLS", policy(Capabilities{"STLS": nil}, nil), []loginMethod{userPass}},
		{"C-036 a digest before a password in clear", policy(all, func(p *loginPolicy) {
			inClear(p)
			p.allowed = []string{"PLAIN", "CRAM-MD5", "USER", "APOP"}
		}), []loginMethod{"CRAM-MD5", apop, "PLAIN", userPass}},
		{"C-036 over verified TLS", policy(all, allow("PLAIN", "CRAM-MD5", "USER", "APOP")),
			[]loginMethod{"PLAIN", userPass, "CRAM-MD5", apop}},
		{"unknown mechanisms", policy(Capabilities{"SASL": {"X-ZIMBRA", "GSSAPI", "NTLM"}}, nil), nil},
		{"names that only begin with a known name",
			policy(Capabilities{"SASL": {"PLAINX", "SCRAM-SHA-256X"}}, nil), nil},
	} {
		got := tt.p.methods()
		if len(tt.want) == 0 {
			assert.Empty(t, got, tt.name)
			continue
		}
		assert.Equal(t, tt.want, got, tt.name)
	}
}

// If no method can be used, the error says why, and what the caller can do.
func TestLoginNoMethod(t *testing.T) {
	allTrue := loginPolicy{
		passwordOK: true, encrypted: true, verified: true, nameIsWord: true, asciiName: true, asciiPassword: true,
	}
	many := make([]string, 60)
	for i := range many {
		many[i] = fmt.Sprintf("X-MECHANISM-%d", i)
	}
	for _, tt := range []struct {
		name      string
		change    func(p *loginPolicy)
		wantErr   error
		wantTexts []string
	}{
		{"connection", func(p *loginPolicy) { p.caps, p.passwordOK = Capabilities{"USER": nil}, false },
			ErrInsecureAuth, nil},
		{"server", func(p *loginPolicy) { p.caps = Capabilities{"SASL": {"GSSAPI", "XOAUTH2"}} }, nil,
			[]string{"the server offers nothing that Login knows (SASL GSSAPI XOAUTH2)", "call Auth"}},
		{"server lacks all, connection unsafe", func(p *loginPolicy) {
			p.caps, p.passwordOK = Capabilities{"SASL": {"GSSAPI"}}, false
		}, nil, []string{"SASL GSSAPI", "call Auth"}},
		{"C-034 Options.Mechanisms", func(p *loginPolicy) {
			p.caps, p.allowed = Capabilities{"SASL": {"PLAIN", "XOAUTH2"}, "USER": nil}, []string{"XOAUTH2"}
		}, nil, []string{"Options.Mechanisms (XOAUTH2) allows nothing",
			"(SASL PLAIN XOAUTH2, USER)", "CRAM-MD5 APOP)"}},
		{"C-034 a long list is cut with a mark", func(p *loginPolicy) { p.caps = Capabilities{"SASL": many} }, nil,
			[]string{"X-MECHANISM-0", "…"}},
		{"C-033 password", func(p *loginPolicy) { p.caps, p.asciiPassword = Capabilities{"USER": nil}, false }, nil,
			[]string{"the password is not ASCII", "UTF8 USER", "(no SASL, USER)", "use only ASCII"}},
		{"C-033 name", func(p *loginPolicy) { p.caps, p.asciiName = Capabilities{"USER": nil}, false }, nil,
			[]string{"the name is not ASCII"}},
		{"C-033 a space in the name", func(p *loginPolicy) {
			p.caps, p.nameIsWord = Capabilities{"USER": nil}, false
		}, nil, []string{"the name contains a space"}},
		{"C-035 TLS first", func(p *loginPolicy) {
			p.caps, p.encrypted, p.verified = Capabilities{"STLS": nil, "UIDL": nil}, false, false
		}, nil, []string{"before TLS", "DialStartTLS"}},
	} {
		p := allTrue
		tt.change(&p)
		err := new(Client).explainNoMethod(p)
		if tt.wantErr != nil {
			assert.ErrorIs(t, err, tt.wantErr, tt.name)
			continue
		}
		assert.ErrorIs(t, err, errors.ErrUnsupported, tt.name)
		assert.NotErrorIs(t, err, ErrInsecureAuth, tt.name)
		for _, words := range tt.wantTexts {
			assert.ErrorContains(t, err, words, tt.name)
		}
	}
}

// R1-146: the channel-binding flag of SCRAM depends on what the client and the server support.
func TestLoginMechanism(t *testing.T) {
	for _, tt := range []struct {
		name    string
		m       loginMethod
		canBind bool
		offered []string
		mech    string
		ir      string // the beginning of the initial response
	}{
		{"the client can't bind", "SCRAM-SHA-256", false, []string{"SCRAM-SHA-256"}, "SCRAM-SHA-256", "n,,n=bob,"},
		{"the client can't bind, the server can", "SCRAM-SHA-256", false,
			[]string{"SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"}, "SCRAM-SHA-256", "n,,n=bob,"},
		{"the server can't bind", "SCRAM-SHA-256", true, []string{"SCRAM-SHA-256"}, "SCRAM-SHA-256", "y,,n=bob,"},
		{"PLAIN", "PLAIN", true, []string{"PLAIN"}, "PLAIN", "\x00bob\x00secret"},
		{"LOGIN", "LOGIN", true, []string{"LOGIN"}, "LOGIN", ""},
		{"CRAM-MD5", "CRAM-MD5", true, []string{"CRAM-MD5"}, "CRAM-MD5", ""},
	} {
		p := loginPolicy{canBind: tt.canBind, caps: Capabilities{"SASL": tt.offered}}
		var client sasl.Client
		client, err := p.mechanism(tt.m, nil, "bob", "secret")
		if !assert.NoError(t, err, tt.name) {
			continue
		}
		mech, ir, err := client.Start()
		assert.NoError(t, err, tt.name)
		assert.Equal(t, tt.mech, mech, tt.name)
		assert.Contains(t, string(ir), tt.ir, tt.name)
	}
}

// keepsSecret must be right about every mechanism: if it returned true for the wrong one, a password would be sent in
// clear.
func TestKeepsSecret(t *testing.T) {
	for _, mech := range []string{
		"CRAM-MD5", "DIGEST-MD5", "SCRAM-SHA-1", "SCRAM-SHA-256-PLUS", "EXTERNAL", "ANONYMOUS", "GSSAPI",
	} {
		assert.True(t, keepsSecret(mech), mech)
	}
	for _, mech := range []string{
		"PLAIN", "LOGIN", "XOAUTH2", "OAUTHBEARER", "", "X-SCRAM-SHA-1", "NTLM", "PASSWORD", "SCRAM",
	} {
		assert.False(t, keepsSecret(mech), mech)
	}
}

func TestSecretAllowed(t *testing.T) {
	for _, tt := range []struct {
		name                   string
		p                      peer
		insecure               bool
		password, token, scram bool
	}{
		{name: "in clear", scram: true},
		{name: "verified", p: peer{verified: true}, password: true, token: true, scram: true},
		{name: "this machine", p: peer{loopback: true}, password: true, scram: true},
		{name: "InsecureAuth", insecure: true, password: true, token: true, scram: true},
	} {
		c := &Client{peer: tt.p, opts: Options{InsecureAuth: tt.insecure}}
		for _, mech := range []string{"", "PLAIN", "LOGIN", "X-NEW"} {
			assert.Equal(t, tt.password, c.secretAllowed(mech), "%s: %q", tt.name, mech)
		}
		for _, mech := range []string{"XOAUTH2", "OAUTHBEARER"} {
			assert.Equal(t, tt.token, c.secretAllowed(mech), "%s: %q", tt.name, mech)
		}
		assert.Equal(t, tt.scram, c.secretAllowed("SCRAM-SHA-256"), tt.name)
	}
}

// C-030: blamesSyntax distinguishes texts about the syntax of a command from texts about its arguments.
func TestBlamesSyntax(t *testing.T) {
	for _, text := range []string{
		"Invalid number of parameters", "Unexpected extra argument", "Syntax error", "Unrecognized command",
		"Usage: AUTH mechanism", "unrecognised authentication type", "command not implemented yet",
		"Protocol error. Connection is closed. 10",
	} {
		assert.True(t, blamesSyntax(text), text)
	}
	for _, text := range []string{"", "Authentication failed.", "bad login", "no such mechanism", "not supported"} {
		assert.False(t, blamesSyntax(text), text)
	}
}
