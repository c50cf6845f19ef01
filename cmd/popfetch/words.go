package main

import (
	"regexp"
	"strings"

	"github.com/seed-2d50cddb/pop3/internal/printable"
)

// keyNames replaces the Go names in errors of the library by keys of the configuration.
var keyNames = strings.NewReplacer(
	"add it or its authority to Options.TLSConfig.RootCAs",
	"set ca_file to its authority, or fingerprint to its fingerprint, which popfetch --diagnose shows",
	"PipeliningNever", `"never"`,
	"Options.TLSConfig.RootCAs", "ca_file", "TLSConfig.RootCAs", "ca_file", "RootCAs", "ca_file",
	"Options.TLSConfig.ServerName", "certificate_name", "Options.TLSConfig", "the keys about TLS",
	"Options.Mechanisms", "mechanisms", "Options.InsecureAuth", "insecure_auth", "Options.Timeout", "timeout",
	"Options.Pipelining", "pipelining", "Options.Compat.NoCapa", "no_capa",
	"Options.Compat.NoInitialResponse", "no_initial_response", "Options.DialContext", "proxy",
	"InsecureAuth", "insecure_auth", "AcceptShort", "accept_short",
	"MaxSize", "max_size", "MaxMessages", "max_messages", "MaxOctets", "max_octets", "CommitEvery", "commit_every",
	"seen messages of ", "the record (state) of ", "not selected", "by a filter",
	"or make it with Maildir.Create", "or make it by hand",
	"or make it with Mbox.Create", "or make it by hand", "or make it with EMLFolder.Create", "or make it by hand",
	"DialContext for any other proxy", "proxy in the configuration for one with http://",
	"DialStartTLS", `tls = "starttls"`, "DialTLS", `tls = "implicit"`, "DialInsecure", `tls = "none"`,
)

var packagePrefix = regexp.MustCompile(`\b(fetch|pop3): `)

// errorLines returns the lines of an error as popfetch shows them. They contain keys of the configuration instead of Go
// names, and no control characters.
func errorLines(err error) []string {
	if err == nil {
		return nil
	}
	var all []string
	for text := range strings.Lines(err.Error()) {
		if text = strings.TrimSpace(clean(keyNames.Replace(packagePrefix.ReplaceAllString(text, "")))); text != "" {
			all = append(all, text)
		}
	}
	return all
}

// clean returns a text of another program or a server as one line without control characters.
func clean(text string) string { return printable.Clean(strings.ReplaceAll(text, "\n", " ")) }
