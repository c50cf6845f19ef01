package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/seed-2d50cddb/pop3"
)

// A page collects the text of a diagnosis. It consists of titles, and of rows with a label and a text.
type page struct{ strings.Builder }

const (
	labelWidth = 15
	lineWidth  = 75
)

func (p *page) row(label, format string, args ...any) {
	text := strings.ReplaceAll(fmt.Sprintf(format, args...), "\n", "\n  "+strings.Repeat(" ", labelWidth))
	fmt.Fprintf(p, "  %-*s%s\n", labelWidth, label, text)
}

// text returns the diagnosis as text for a person. It contains the lines to write in the configuration.
func (d *diagnosis) text(now time.Time) string {
	p := new(page)
	for _, e := range d.Endpoints {
		e.write(p, now)
		p.WriteString("\n")
	}
	if best := d.best(); best != nil {
		best.advise(p, d.Host)
	} else {
		d.explainFailure(p)
	}
	return p.String()
}

// explainFailure explains why no endpoint can be used, and what to do.
func (d *diagnosis) explainFailure(p *page) {
	for _, e := range d.Endpoints {
		if e.Refused {
			p.WriteString("There is a POP3 server, but it refuses the connection. Its reply is above.\n" +
				"Try again later, or ask the provider.\n")
			return
		}
	}
	p.WriteString("No POP3 server was found. Ask the provider for the server name and the port.\n")
}

// tlsDescriptions contains a description of each value of the key tls.
var tlsDescriptions = map[string]string{
	tlsImplicit: "TLS from the first byte", tlsStart: "STLS on a connection in clear", tlsNone: "no TLS",
}

func (e *endpoint) write(p *page, now time.Time) {
	if e.Error != "" {
		fmt.Fprintf(p, "%s: %s\n", e.Addr,
			choice(e.Refused, "a POP3 server that refuses the connection", "no POP3 server"))
		p.row("error", "%s", fold(e.Error, lineWidth))
		return
	}
	fmt.Fprintf(p, "%s: %s\n", e.Addr, tlsDescriptions[e.TLS])
	p.row("greeting", "%q", e.Greeting)
	p.row("delays", "greeting after %s%s", milliseconds(e.GreetingDelay),
		choice(e.NoCapa, "", ", round trip "+milliseconds(e.RoundTrip)))
	if e.Version != "" {
		p.row("encryption", "%s, %s", e.Version, e.Cipher)
	}
	if e.TLSError != "" {
		p.row("STLS", "failed: %s", e.TLSError)
	}
	e.writeCertificates(p, now)
	if e.Clear != nil && e.Encrypted != nil {
		p.row("before TLS", "%s", e.Clear.capabilityText())
		p.row("", "login: %s", e.Clear.loginText())
		p.row("after TLS", "%s", e.Encrypted.capabilityText())
	} else {
		p.row("capabilities", "%s", e.finalOffer().capabilityText())
	}
	e.writeFeatures(p)
}

// finalOffer returns what the server offers after TLS. If TLS is not possible, it returns what the server offers in
// clear.
func (e *endpoint) finalOffer() *offer {
	if e.Encrypted != nil {
		return e.Encrypted
	}
	return e.Clear
}

func (e *endpoint) writeCertificates(p *page, now time.Time) {
	label := "certificate"
	for i, c := range e.Certificates {
		text := c.Subject
		if i == 0 && len(c.Names) > 0 {
			text += ", for " + strings.Join(c.Names, ", ")
		}
		p.row(label, "%s\nissued by %s\n%s", fold(text, lineWidth), fold(c.Issuer, lineWidth),
			expiryText(c.Expires, now))
		if i == 0 {
			p.row("", "SHA-256 %s", c.Fingerprint[:len(c.Fingerprint)/2+1])
			p.row("", "        %s", c.Fingerprint[len(c.Fingerprint)/2+1:])
		}
		label = ""
	}
	switch {
	case e.Distrust != "":
		p.row("", "%s", fold("NOT TRUSTED: "+e.Distrust, lineWidth))
	case len(e.Certificates) > 0:
		p.row("", "trusted, and valid for the name of the server")
	}
}

// The diagnosis warns about a certificate that expires within expiryWarning.
const expiryWarning = 14 * 24 * time.Hour

func expiryText(at, now time.Time) string {
	left := at.Sub(now)
	text := fmt.Sprintf("expires on %s, in %d days", at.UTC().Format(time.DateOnly), left/(24*time.Hour))
	switch {
	case left < 0:
		return "EXPIRED on " + at.UTC().Format(time.DateOnly)
	case left < expiryWarning:
		return text + ": SOON"
	}
	return text
}

// capabilityText returns the capabilities as text. It leaves out the SASL mechanisms, because loginText returns them.
func (o *offer) capabilityText() string {
	if o.Capabilities == nil {
		return "not announced"
	}
	var words []string
	for _, name := range slices.Sorted(maps.Keys(o.Capabilities)) {
		if name != "SASL" {
			words = append(words, clean(strings.Join(append([]string{name}, o.Capabilities[name]...), " ")))
		}
	}
	if len(o.Mechanisms) > 0 {
		words = append(words, "SASL")
	}
	return fold(strings.Join(words, ", "), lineWidth)
}

// fold breaks a text into lines at its spaces.
func fold(text string, width int) string {
	var lines []string
	for len(text) > width {
		i := strings.LastIndex(text[:width+1], " ")
		if i < 0 {
			break
		}
		lines = append(lines, text[:i])
		text = text[i+1:]
	}
	return strings.Join(append(lines, text), "\n")
}

// writeFeatures writes what the announced capabilities mean, for example EXPIRE.
func (e *endpoint) writeFeatures(p *page) {
	caps := e.finalOffer().Capabilities
	p.row("login", "%s", e.finalOffer().loginText())
	if caps == nil {
		return
	}
	p.row("pipelining", "%s", choice(caps.Has("PIPELINING"), "yes: many messages in one round trip",
		"not announced: one round trip for each message"))
	p.row("new mail", "%s", choice(caps.Has("UIDL"), "recognized by unique-id (UIDL)",
		"UIDL not announced: without it each run retrieves all messages"))
	delay, ok := caps.LoginDelay()
	p.row("login delay", "%s", choice(ok && delay > 0,
		fmt.Sprintf("at least %v between two logins", delay), "none announced"))
	p.row("expiry", "%s", retentionText(caps))
}

// loginText returns the mechanisms to log in with, as text.
func (o *offer) loginText() string {
	mechanisms := slices.Clone(o.Mechanisms)
	if o.Capabilities.Has("USER") {
		mechanisms = append(mechanisms, "USER and PASS")
	}
	if len(mechanisms) == 0 {
		return "nothing announced"
	}
	return fold(strings.Join(mechanisms, ", "), lineWidth-len("login: "))
}

func choice(cond bool, yes, no string) string {
	if cond {
		return yes
	}
	return no
}

func retentionText(caps pop3.Capabilities) string {
	days, ok := caps.Expire()
	switch {
	case !ok:
		return "not announced"
	case days < 0:
		return "never: the server keeps messages until they are deleted"
	case days == 0:
		return "AT ONCE: the server may delete retrieved messages at the end of the session"
	}
	return fmt.Sprintf("the server keeps messages for at least %d days", days)
}

// milliseconds formats a duration in milliseconds.
func milliseconds(d time.Duration) string {
	if d < 10*time.Millisecond {
		return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond))
	}
	return fmt.Sprintf("%d ms", d.Milliseconds())
}

// advise writes an account for the configuration. It explains the keys in it that most accounts do not need.
func (e *endpoint) advise(p *page, host string) {
	server := host
	if _, port, _ := net.SplitHostPort(e.Addr); port != usualPorts[e.TLS] {
		server = e.Addr
	}
	fmt.Fprintf(p, "For the configuration:\n\n  [[account]]\n  server = %q\n  tls = %q\n", server, e.TLS)
	p.WriteString("  user = \"…\"\n  password_command = [\"…\"]\n  maildir = \"~/Maildir\"\n")
	if delay, ok := e.finalOffer().Capabilities.LoginDelay(); ok && delay > defaultInterval {
		fmt.Fprintf(p, "  interval = %q\n", delay)
	}
	isOld := e.tlsVersion > 0 && e.tlsVersion < tls.VersionTLS12
	if isOld {
		fmt.Fprintf(p, "  tls_min = %q\n", strings.TrimPrefix(e.Version, "TLS "))
	}
	if e.NoCapa {
		p.WriteString("  no_capa = true\n\n" +
			"The server closes the connection at the command CAPA, or at the second one.\n" +
			"With no_capa, popfetch does not send it.\n")
	}
	if isOld {
		fmt.Fprintf(p, "\n%s is out of date and not secure. Ask the provider for a server with TLS 1.2 or later.\n",
			e.Version)
	}
	switch {
	case e.Encrypted == nil:
		p.WriteString("\nWithout TLS, anybody on the network can read the password and the mail. Popfetch sends a\n" +
			"password in clear only to a server on this machine. To allow it anyway, add\n  insecure_auth = true\n")
	case e.Distrust != "":
		e.adviseTrust(p)
	}
}

// adviseTrust writes what to do about a certificate that is not trusted.
func (e *endpoint) adviseTrust(p *page) {
	first := e.Certificates[0]
	wrongName, isWrongName := errors.AsType[x509.HostnameError](e.distrustErr)
	invalid, isInvalid := errors.AsType[x509.CertificateInvalidError](e.distrustErr)
	switch {
	case isInvalid && invalid.Reason == x509.Expired:
		p.WriteString("\nThe certificate has expired, or the clock of this machine is wrong. Tell the administrator\n" +
			"of the server. To accept only this certificate until there is a new one, add\n")
	case isWrongName && len(first.Names) > 0:
		fmt.Fprintf(p, "\nThe certificate is not valid for %s. Use one of its names as server. Or add\n"+
			"  certificate_name = %q\nif the administrator says that the certificate is the right one.\n",
			clean(wrongName.Host), first.Names[0])
		return
	default:
		p.WriteString("\nPopfetch refuses a certificate that is not trusted. If the server has an authority of\n" +
			"its own, get its certificate from the administrator and add\n  ca_file = \"/path/to/authority.pem\"\n" +
			"Or ask for the SHA-256 of the certificate. If it is the one above, add\n")
	}
	fmt.Fprintf(p, "  fingerprint = %q\n", first.Fingerprint)
}

var usualPorts = map[string]string{tlsImplicit: "995", tlsStart: "110", tlsNone: "110"}
