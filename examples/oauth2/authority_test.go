package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"

	"golang.org/x/oauth2"
)

// Secrets of the tests. The good access token is as long as those of Microsoft: it does not fit on a command
// line of POP3.
var (
	goodAccess = "good-access-" + strings.Repeat("eyJ0eXAiOiJKV1Q.", 100)
	oldAccess  = "old-access-ya29.a0AfH6SMB"
	oldRefresh = "old-refresh-1//0gXyZ"
	newRefresh = "new-refresh-M.C507_BL2"
	aClientKey = "client-key-GOCSPX-x"
	aCode      = "authorization-code-4/0AX4"
	deviceCode = "device-code-BAQABAAEA"
)

// An authority is an authorization server. It asks no user for consent: everybody consents to everything.
type authority struct {
	refuse url.Values // refusal of a request for a token, if any: "error", "error_description"
	crash  bool       // it replies with a page for developers, which repeats the request

	mu        sync.Mutex
	challenge string       // the PKCE challenge in the last request for consent
	requests  []url.Values // requests for tokens
	pending   int          // how many more times a device has to wait
}

func startAuthority() (*authority, *httptest.Server) {
	a := new(authority)
	return a, httptest.NewServer(a)
}

func (a *authority) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	r.ParseForm()
	switch r.URL.Path {
	case "/authorize":
		a.challenge = r.Form.Get("code_challenge")
		back := url.Values{"state": {r.Form.Get("state")}, "code": {aCode}}
		if a.refuse != nil {
			back = url.Values{"state": {r.Form.Get("state")}, "error": a.refuse["error"]}
		}
		http.Redirect(w, r, r.Form.Get("redirect_uri")+"?"+back.Encode(), http.StatusFound)
	case "/device":
		answer(w, http.StatusOK, map[string]any{"device_code": deviceCode, "user_code": "WDJB-MJHT",
			"verification_uri": "https://example.com/device", "expires_in": 900, "interval": 5})
	case "/token":
		a.requests = append(a.requests, r.PostForm)
		a.token(w, r.PostForm)
	}
}

func (a *authority) token(w http.ResponseWriter, request url.Values) {
	switch {
	case a.crash:
		http.Error(w, "panic: request was "+request.Encode(), http.StatusInternalServerError)
	case a.refuse != nil:
		answer(w, http.StatusBadRequest, map[string]any{
			"error": a.refuse.Get("error"), "error_description": a.refuse.Get("error_description")})
	case a.pending > 0:
		a.pending--
		answer(w, http.StatusBadRequest, map[string]any{"error": "authorization_pending"})
	case !a.proved(request):
		answer(w, http.StatusBadRequest, map[string]any{"error": "invalid_grant", "error_description": "not proved"})
	default:
		answer(w, http.StatusOK, map[string]any{"access_token": goodAccess, "token_type": "Bearer",
			"expires_in": 3600, "refresh_token": newRefresh})
	}
}

// proved reports whether a request contains what a request of its kind needs.
func (a *authority) proved(request url.Values) bool {
	switch request.Get("grant_type") {
	case "refresh_token":
		return request.Get("refresh_token") == oldRefresh && request.Get("client_id") == "my-id"
	case "authorization_code":
		verified := oauth2.S256ChallengeFromVerifier(request.Get("code_verifier")) == a.challenge
		return request.Get("code") == aCode && verified
	}
	return request.Get("device_code") == deviceCode
}

// kinds returns the kinds of requests for tokens so far.
func (a *authority) kinds() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var kinds []string
	for _, request := range a.requests {
		kinds = append(kinds, request.Get("grant_type"))
	}
	return kinds
}

func answer(w http.ResponseWriter, status int, fields map[string]any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(fields)
}

// pretend returns the provider with the addresses of servers on this machine.
func (p *provider) pretend(authority, pop3 string) {
	p.addr = pop3
	p.endpoint = oauth2.Endpoint{
		AuthURL: authority + "/authorize", TokenURL: authority + "/token", DeviceAuthURL: authority + "/device"}
}
