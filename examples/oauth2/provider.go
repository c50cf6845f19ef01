package main

import (
	"slices"
	"strings"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/endpoints"
)

// A provider is all that differs between them.
type provider struct {
	addr     string // of the POP3 server, for TLS from the first byte
	endpoint oauth2.Endpoint
	scopes   []string // what the user is asked to allow
	redirect string   // where the browser is sent back to, without the port, in the form that the provider wants
	consent  string   // the way of consent that suits it
	extra    []oauth2.AuthCodeOption
}

var providers = map[string]func(tenant string) provider{"google": google, "microsoft": microsoft}

// google gives a refresh token only to those who ask for offline access, and only with a consent that is shown.
func google(string) provider {
	return provider{
		addr:     "pop.gmail.com",
		endpoint: endpoints.Google,
		scopes:   []string{"https://mail.google.com/"},
		redirect: "http://127.0.0.1",
		consent:  "browser", // the device flow has no scope for mail
		extra:    []oauth2.AuthCodeOption{oauth2.AccessTypeOffline, oauth2.ApprovalForce},
	}
}

// microsoft gives a refresh token with the scope offline_access.
func microsoft(tenant string) provider {
	return provider{
		addr:     "outlook.office365.com",
		endpoint: endpoints.AzureAD(tenant),
		scopes:   []string{"https://outlook.office.com/POP.AccessAsUser.All", "offline_access"},
		redirect: "http://localhost",
		consent:  "device",
	}
}

// config is the provider as package oauth2 wants it. The client ID goes as a parameter, which both providers take:
// otherwise the package would have to find out, with a request that fails.
func (p provider) config(clientID, clientSecret string) *oauth2.Config {
	p.endpoint.AuthStyle = oauth2.AuthStyleInParams
	return &oauth2.Config{
		ClientID:     clientID,
		ClientSecret: clientSecret,
		Endpoint:     p.endpoint,
		RedirectURL:  p.redirect,
		Scopes:       p.scopes,
	}
}

// options are what to say in the question for consent. The prefix is for Gmail's POP3 server only.
func (p provider) options(user string) []oauth2.AuthCodeOption {
	hint := strings.TrimPrefix(user, "recent:")
	return append(slices.Clip(p.extra), oauth2.SetAuthURLParam("login_hint", hint))
}
