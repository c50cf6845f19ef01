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

// A consent asks the user to let the program read the mail, and returns the first tokens.
type consent func(context.Context, *oauth2.Config, []oauth2.AuthCodeOption, io.Writer) (*oauth2.Token, error)

var consents = map[string]consent{"browser": inBrowser, "device": onDevice}

// onDevice uses the device flow (RFC 8628): the user types a code into a browser on any machine.
func onDevice(
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

// inBrowser uses the authorization code flow with a redirect to the program itself (RFC 8252 section 7.3), for a
// browser on the same machine. The state makes sure that the answer belongs to this request. With PKCE (RFC 7636)
// nobody else can use the code in the answer.
func inBrowser(
	ctx context.Context, config *oauth2.Config, options []oauth2.AuthCodeOption, prompt io.Writer,
) (*oauth2.Token, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	here := *config // a copy, to which the port is added
	here.RedirectURL = fmt.Sprintf("%s:%d", config.RedirectURL, listener.Addr().(*net.TCPAddr).Port)
	state, verifier := rand.Text(), oauth2.GenerateVerifier()
	answers := make(chan url.Values, 1)
	defer serve(listener, takeAnswer(state, answers))()

	options = append(options, oauth2.S256ChallengeOption(verifier))
	fmt.Fprintf(prompt, "Open this in a browser on this machine:\n\n%s\n\n", here.AuthCodeURL(state, options...))
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case answer := <-answers:
		code := answer.Get("code")
		if code == "" {
			return nil, fmt.Errorf("the provider says %q: %q", answer.Get("error"), answer.Get("error_description"))
		}
		token, err := here.Exchange(ctx, code, oauth2.VerifierOption(verifier))
		return token, explain(err, code, verifier, config.ClientSecret)
	}
}

// takeAnswer waits for the answer of the provider, which the browser brings as a request, and passes on the first one.
func takeAnswer(state string, answers chan<- url.Values) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		answer := r.URL.Query()
		if answer.Get("state") != state {
			http.Error(w, "This is not the answer to the question that was asked.", http.StatusBadRequest)
			return
		}
		select {
		case answers <- answer:
			fmt.Fprintln(w, "Thank you. You can close this window.")
		default:
			http.Error(w, "The question was answered before.", http.StatusConflict)
		}
	}
}

// serve answers browsers until stop is called. stop leaves the browser up to a second to receive its page.
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
