package lossproof

import (
	"crypto/tls"
	"net"
	"strings"
)

// A host serves a session of the model over a wire, with or without TLS.
type host struct {
	session *session
	w       *wire
	conn    net.Conn
	sent    int
	fault   *plainFault
}

// A plainFault is a fault of the server itself, at an octet that it sends within TLS.
type plainFault struct {
	at        int
	insert    string // an extra reply; if it is "", the server hangs up with the close alert
	ownRecord bool   // the extra reply is in a TLS record of its own
}

// serve serves the whole session. It returns when the connection ends.
func (h *host) serve(overTLS bool) {
	h.conn = serverEnd{w: h.w}
	defer func() { h.conn.Close() }()
	if overTLS {
		h.startTLS()
	}
	if !h.send(h.session.greet()) {
		return
	}
	buf := make([]byte, 4096)
	for {
		n, err := h.conn.Read(buf)
		replies, next := h.session.receive(buf[:n])
		if !h.answer(replies) || err != nil || next == hangUp && !h.session.variant.staysConnected {
			return
		}
		if next == startTLS {
			h.startTLS()
		}
	}
}

func (h *host) startTLS() { h.conn = tls.Server(serverEnd{w: h.w}, serverTLS()) }

func (h *host) answer(replies []string) bool {
	if h.session.variant.joinsReplies {
		return h.send(strings.Join(replies, ""))
	}
	for _, reply := range replies {
		if !h.send(reply) {
			return false
		}
	}
	return true
}

// send writes text at once, unless the server's fault happens in it.
func (h *host) send(text string) bool {
	f := h.fault
	if _, encrypted := h.conn.(*tls.Conn); f == nil || !encrypted || f.at > h.sent+len(text) {
		h.sent += len(text)
		return h.write(text)
	}
	head, tail := text[:max(f.at-h.sent, 0)], text[max(f.at-h.sent, 0):]
	h.sent += len(text)
	h.fault = nil
	switch {
	case f.insert == "":
		h.write(head)
		return false
	case f.ownRecord:
		return h.write(head) && h.write(f.insert) && h.write(tail)
	}
	return h.write(head + f.insert + tail)
}

func (h *host) write(text string) bool {
	if text == "" {
		return true
	}
	h.session.delivered = append(h.session.delivered, text...)
	_, err := h.conn.Write([]byte(text))
	return err == nil
}
