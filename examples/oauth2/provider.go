package main

import (
	"slices"
	"strings"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/endpoints"
)

// A provider contains everything that differs between providers.
type provider struct {
	addr     string // address of the POP3 server, for TLS from the first byte
	endpoint oauth2.Endpoint
	scopes   []string // the permissions that the program asks for
	redirect string   // URL of the redirect without the port, in the form that the provider requires
	consent  string   // the default flow
	extra    []oauth2.AuthCodeOption
}

var providers = map[string]func(tenant string) provider{"google": google, "microsoft": microsoft}

// google returns the provider Google. Google issues a refresh token only if the request asks for offline access, and
// only if the consent page is shown.
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

// microsoft returns the provider Microsoft, which issues a refresh token if offline_access is among the scopes.
func microsoft(tenant string) provider {
	return provider{
		addr:     "outlook.office365.com",
		endpoint: endpoints.AzureAD(tenant),
		scopes:   []string{"https://outlook.office.com/POP.AccessAsUser.All", "offline_access"},
		redirect: "http://localhost",
		consent:  "device",
	}
}

// config returns the configuration of package oauth2. The client ID is sent as a parameter, which both providers
// accept. Without this setting, package oauth2 would first try another form, and that request would fail.
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

// options returns parameters for the request for consent. It removes the prefix "recent:" from the user, because only
// Gmail's POP3 server understands that prefix.
func (p provider) options(user string) []oauth2.AuthCodeOption {
	hint := strings.TrimPrefix(user, "recent:")
	return append(slices.Clip(p.extra), oauth2.SetAuthURLParam("login_hint", hint))
}
