package pop3

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/seed-2d50cddb/pop3/sasl"
)

func TestLoginWays(t *testing.T) {
	const plus = "SCRAM-SHA-256-PLUS"
	all := Capabilities{"USER": nil, "SASL": {"PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-1", "SCRAM-SHA-256", plus, "XOAUTH2"}}
	good := loginPolicy{secure: true, binds: true, word: true, ascii: true, hasStamp: true}
	with := func(caps Capabilities, change func(*loginPolicy)) loginPolicy {
		p := good
		p.caps = caps
		if change != nil {
			change(&p)
		}
		return p
	}
	only := func(names ...string) func(*loginPolicy) {
		return func(p *loginPolicy) { p.allowed = names }
	}
	for _, tt := range []struct {
		name string
		p    loginPolicy
		want []way
	}{
		{"the strongest first", with(all, nil), []way{plus, "SCRAM-SHA-256", "SCRAM-SHA-1", "PLAIN", "LOGIN", userPass}},
		{"R1-147 no binding", with(all, func(p *loginPolicy) { p.binds = false }), []way{"SCRAM-SHA-256", "SCRAM-SHA-1", "PLAIN", "LOGIN", userPass}},
		{"lower case", with(Capabilities{"SASL": {"plain"}}, nil), []way{"PLAIN"}},
		{"strongest hash", with(Capabilities{"SASL": {"SCRAM-SHA-1", "SCRAM-SHA-512", "SCRAM-SHA-256"}}, nil), []way{"SCRAM-SHA-512", "SCRAM-SHA-256", "SCRAM-SHA-1"}},
		{"R1-092 no capabilities", with(nil, nil), []way{userPass}},
		{"R1-092 none about logging in", with(Capabilities{"UIDL": nil}, nil), []way{userPass}},
		{"R1-102 SASL without mechanisms", with(Capabilities{"SASL": nil}, nil), nil},
		{"SASL without mechanisms, and USER", with(Capabilities{"SASL": nil, "USER": nil}, nil), []way{userPass}},
		{"H-189 only what is allowed", with(Capabilities{"SASL": {"PLAIN"}}, only("SCRAM-SHA-256")), nil},
		{"allowed in lower case", with(all, only("scram-sha-256", "plain")), []way{"SCRAM-SHA-256", "PLAIN"}},
		{"only the form that binds", with(all, only(plus)), []way{plus}},
		{"nothing is allowed", with(all, func(p *loginPolicy) { p.allowed = []string{} }), nil},
		{"R1-150 CRAM-MD5 never by itself", with(Capabilities{"SASL": {"CRAM-MD5"}}, nil), nil},
		{"R1-150 CRAM-MD5 if named", with(Capabilities{"SASL": {"CRAM-MD5"}}, only("CRAM-MD5")), []way{"CRAM-MD5"}},
		{"Q-19 APOP if named", with(all, only("APOP", "PLAIN")), []way{"PLAIN", apop}},
		{"R1-100 APOP without a timestamp", with(all, func(p *loginPolicy) { p.allowed, p.hasStamp = []string{"APOP"}, false }), nil},
		{"R1-126 APOP and more than ASCII", with(all, func(p *loginPolicy) { p.allowed, p.ascii = []string{"APOP"}, false }), nil},
		{"R1-140 in clear", with(all, func(p *loginPolicy) { p.secure = false }), []way{plus, "SCRAM-SHA-256", "SCRAM-SHA-1"}},
		{"R1-122 in clear, USER only", with(Capabilities{"USER": nil}, func(p *loginPolicy) { p.secure = false }), nil},
		{"APOP in clear", with(all, func(p *loginPolicy) { p.allowed, p.secure = []string{"APOP"}, false }), nil},
		{"CRAM-MD5 in clear, if named", with(all, func(p *loginPolicy) { p.allowed, p.secure = []string{"CRAM-MD5"}, false }), []way{"CRAM-MD5"}},
		{"R1-121 a space in the name", with(all, func(p *loginPolicy) { p.word = false }), []way{plus, "SCRAM-SHA-256", "SCRAM-SHA-1", "PLAIN", "LOGIN"}},
		{"R1-151 more than ASCII", with(all, func(p *loginPolicy) { p.ascii = false }), []way{plus, "SCRAM-SHA-256", "SCRAM-SHA-1", "PLAIN", "LOGIN"}},
		{"R1-151 more than ASCII, UTF8 USER", with(Capabilities{"USER": nil, "UTF8": {"user"}}, func(p *loginPolicy) { p.ascii = false }), []way{userPass}},
		{"R1-151 more than ASCII, UTF8", with(Capabilities{"USER": nil, "UTF8": nil}, func(p *loginPolicy) { p.ascii = false }), nil},
		{"no USER beside SASL", with(Capabilities{"SASL": {"PLAIN"}}, nil), []way{"PLAIN"}},
		{"mechanisms nobody knows", with(Capabilities{"SASL": {"X-ZIMBRA", "GSSAPI", "NTLM"}}, nil), nil},
		{"names that only begin right", with(Capabilities{"SASL": {"PLAINX", "SCRAM-SHA-256X"}}, nil), nil},
	} {
		got := tt.p.ways()
		if len(tt.want) == 0 {
			assert.Empty(t, got, tt.name)
			continue
		}
		assert.Equal(t, tt.want, got, tt.name)
	}
}

// Where there is no way, the error tells what would make one.
func TestLoginNoWay(t *testing.T) {
	p := loginPolicy{caps: Capabilities{"USER": nil}, word: true, ascii: true}
	assert.ErrorIs(t, p.noWay(), ErrInsecureAuth)
	p = loginPolicy{caps: Capabilities{"SASL": {"GSSAPI"}}, word: true, ascii: true}
	assert.ErrorIs(t, p.noWay(), errors.ErrUnsupported)
	assert.NotErrorIs(t, p.noWay(), ErrInsecureAuth)
}

// R1-146: the flag of channel binding says what both sides can do.
func TestLoginMechanism(t *testing.T) {
	for _, tt := range []struct {
		name  string
		w     way
		binds bool
		offer []string
		mech  string
		ir    string // how the initial response begins
	}{
		{"the client can't bind", "SCRAM-SHA-256", false, []string{"SCRAM-SHA-256"}, "SCRAM-SHA-256", "n,,n=bob,"},
		{"the client can't bind, the server can", "SCRAM-SHA-256", false, []string{"SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"}, "SCRAM-SHA-256", "n,,n=bob,"},
		{"the server can't bind", "SCRAM-SHA-256", true, []string{"SCRAM-SHA-256"}, "SCRAM-SHA-256", "y,,n=bob,"},
		{"PLAIN", "PLAIN", true, []string{"PLAIN"}, "PLAIN", "\x00bob\x00secret"},
		{"LOGIN", "LOGIN", true, []string{"LOGIN"}, "LOGIN", ""},
		{"CRAM-MD5", "CRAM-MD5", true, []string{"CRAM-MD5"}, "CRAM-MD5", ""},
	} {
		p := loginPolicy{binds: tt.binds, caps: Capabilities{"SASL": tt.offer}}
		var client sasl.Client
		client, err := p.mechanism(tt.w, nil, "bob", "secret")
		if !assert.NoError(t, err, tt.name) {
			continue
		}
		mech, ir, err := client.Start()
		assert.NoError(t, err, tt.name)
		assert.Equal(t, tt.mech, mech, tt.name)
		assert.Contains(t, string(ir), tt.ir, tt.name)
	}
}

// keepsSecret must be right about every mechanism: a wrong yes sends a password in clear.
func TestKeepsSecret(t *testing.T) {
	for _, mech := range []string{"CRAM-MD5", "DIGEST-MD5", "SCRAM-SHA-1", "SCRAM-SHA-256-PLUS", "EXTERNAL", "ANONYMOUS", "GSSAPI"} {
		assert.True(t, keepsSecret(mech), mech)
	}
	for _, mech := range []string{"PLAIN", "LOGIN", "XOAUTH2", "OAUTHBEARER", "", "X-SCRAM-SHA-1", "NTLM", "PASSWORD", "SCRAM"} {
		assert.False(t, keepsSecret(mech), mech)
	}
}

func TestMaySend(t *testing.T) {
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
