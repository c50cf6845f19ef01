package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"golang.org/x/oauth2"
)

// A consent asks the user to allow the program to read the mail, and returns the first tokens.
type consent func(context.Context, *oauth2.Config, []oauth2.AuthCodeOption, io.Writer) (*oauth2.Token, error)

var consents = map[string]consent{"browser": consentInBrowser, "device": consentOnDevice}

// consentOnDevice uses the device flow (RFC 8628). The user types a code into a browser on any machine.
func consentOnDevice(
	ctx context.Context, config *oauth2.Config, _ []oauth2.AuthCodeOption, prompt io.Writer,
) (*oauth2.Token, error) {
	device, err := config.DeviceAuth(ctx)
	if err != nil {
		return nil, explain(err)
	}
	fmt.Fprintf(prompt, "Open %q in any browser and enter the code %q.\n", device.VerificationURI, device.UserCode)
	token, err := config.DeviceAccessToken(ctx, device)
	return token, explain(err, device.DeviceCode)
}

// consentInBrowser uses the authorization code flow with a browser on the same machine. The provider redirects the
// browser to this program (RFC 8252 section 7.3). The state ensures that the response belongs to this request. Because
// of PKCE (RFC 7636), no other program can use the code in the response.
func consentInBrowser(
	ctx context.Context, config *oauth2.Config, options []oauth2.AuthCodeOption, prompt io.Writer,
) (*oauth2.Token, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	withPort := *config
	withPort.RedirectURL = fmt.Sprintf("%s:%d", config.RedirectURL, listener.Addr().(*net.TCPAddr).Port)
	state, verifier := rand.Text(), oauth2.GenerateVerifier()
	responses := make(chan url.Values, 1)
	defer serve(listener, redirectHandler(state, responses))()

	options = append(options, oauth2.S256ChallengeOption(verifier))
	fmt.Fprintf(prompt, "Open this in a browser on this machine:\n\n%s\n\n", withPort.AuthCodeURL(state, options...))
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case response := <-responses:
		code := response.Get("code")
		if code == "" {
			return nil, fmt.Errorf("the provider says %q: %q", response.Get("error"), response.Get("error_description"))
		}
		token, err := withPort.Exchange(ctx, code, oauth2.VerifierOption(verifier))
		return token, explain(err, code, verifier, config.ClientSecret)
	}
}

// redirectHandler handles the request of the browser after the redirect. The request contains the response of the
// provider. redirectHandler sends the first response to the channel.
func redirectHandler(state string, responses chan<- url.Values) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		response := r.URL.Query()
		if response.Get("state") != state {
			http.Error(w, "This is not the response to the request of the program.", http.StatusBadRequest)
			return
		}
		select {
		case responses <- response:
			fmt.Fprintln(w, "Thank you. You can close this window.")
		default:
			http.Error(w, "The program has already received a response.", http.StatusConflict)
		}
	}
}

// serve serves HTTP until stop is called. stop waits up to a second until the browser has received its page.
func serve(listener net.Listener, handler http.Handler) (stop func()) {
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
	done := make(chan struct{})
	go func() {
		defer close(done)
		server.Serve(listener)
	}()
	return func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if errors.Is(server.Shutdown(ctx), context.DeadlineExceeded) {
			server.Close()
		}
		<-done
	}
}
