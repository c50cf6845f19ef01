// Command fleet polls many POP3 maildrops with many processes: a scheduler says which maildrop is due, workers fetch
// with package fetch, and everything that has to be remembered is in NATS JetStream. See README.md.
package main
