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

// These are secrets of the tests. The good access token is as long as the tokens of Microsoft, and too long for a
// command line of POP3.
var (
	goodAccess   = "good-access-" + strings.Repeat("eyJ0eXAiOiJKV1Q.", 100)
	oldAccess    = "old-access-ya29.a0AfH6SMB"
	oldRefresh   = "old-refresh-1//0gXyZ"
	newRefresh   = "new-refresh-M.C507_BL2"
	clientSecret = "client-key-GOCSPX-x"
	authCode     = "authorization-code-4/0AX4"
	deviceCode   = "device-code-BAQABAAEA"
)

// An authority is an authorization server. It asks no user for consent, and treats each request as allowed.
type authority struct {
	refusal      url.Values // "error" and "error_description" of a refusal of each request; nil for none
	showsRequest bool       // the reply is an error page that repeats the request

	mu        sync.Mutex
	challenge string       // the PKCE challenge in the last request for consent
	requests  []url.Values // requests for tokens
	pending   int          // how many more times the reply to a device is "authorization_pending"
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
		query := url.Values{"state": {r.Form.Get("state")}, "code": {authCode}}
		if a.refusal != nil {
			query = url.Values{"state": {r.Form.Get("state")}, "error": a.refusal["error"]}
		}
		http.Redirect(w, r, r.Form.Get("redirect_uri")+"?"+query.Encode(), http.StatusFound)
	case "/device":
		writeJSON(w, http.StatusOK, map[string]any{"device_code": deviceCode, "user_code": "WDJB-MJHT",
			"verification_uri": "https://example.com/device", "expires_in": 900, "interval": 5})
	case "/token":
		a.requests = append(a.requests, r.PostForm)
		a.token(w, r.PostForm)
	}
}

func (a *authority) token(w http.ResponseWriter, request url.Values) {
	switch {
	case a.showsRequest:
		http.Error(w, "panic: request was "+request.Encode(), http.StatusInternalServerError)
	case a.refusal != nil:
		writeJSON(w, http.StatusBadRequest, map[string]any{
			"error": a.refusal.Get("error"), "error_description": a.refusal.Get("error_description")})
	case a.pending > 0:
		a.pending--
		writeJSON(w, http.StatusBadRequest, map[string]any{"error": "authorization_pending"})
	case !a.isValid(request):
		writeJSON(w, http.StatusBadRequest, map[string]any{"error": "invalid_grant", "error_description": "wrong code"})
	default:
		writeJSON(w, http.StatusOK, map[string]any{"access_token": goodAccess, "token_type": "Bearer",
			"expires_in": 3600, "refresh_token": newRefresh})
	}
}

// isValid reports whether a request contains the right code or token for its grant type.
func (a *authority) isValid(request url.Values) bool {
	switch request.Get("grant_type") {
	case "refresh_token":
		return request.Get("refresh_token") == oldRefresh && request.Get("client_id") == "my-id"
	case "authorization_code":
		verified := oauth2.S256ChallengeFromVerifier(request.Get("code_verifier")) == a.challenge
		return request.Get("code") == authCode && verified
	}
	return request.Get("device_code") == deviceCode
}

// grantTypes returns the grant types of all requests for tokens.
func (a *authority) grantTypes() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	var kinds []string
	for _, request := range a.requests {
		kinds = append(kinds, request.Get("grant_type"))
	}
	return kinds
}

func writeJSON(w http.ResponseWriter, status int, fields map[string]any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(fields)
}

// useServers replaces the addresses of the provider by the addresses of test servers.
func (p *provider) useServers(authority, pop3 string) {
	p.addr = pop3
	p.endpoint = oauth2.Endpoint{
		AuthURL: authority + "/authorize", TokenURL: authority + "/token", DeviceAuthURL: authority + "/device"}
}
