// Package pop3test is a POP3 server for tests, as net/http/httptest is an HTTP server.
package pop3test
