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
	said    int
	fault   *plainFault
}

// A plainFault is a fault of the server itself, at an octet that it sends within TLS.
type plainFault struct {
	at     int
	insert string // an extra reply; if it is "", the server hangs up with the close alert
	apart  bool   // the extra reply is in a TLS record of its own
}

// serve serves the whole session. It returns when the connection ends.
func (h *host) serve(overTLS bool) {
	h.conn = serverEnd{w: h.w}
	defer func() { h.conn.Close() }()
	if overTLS {
		h.startTLS()
	}
	if !h.say(h.session.greet()) {
		return
	}
	buf := make([]byte, 4096)
	for {
		n, err := h.conn.Read(buf)
		replies, next := h.session.feed(buf[:n])
		if !h.answer(replies) || err != nil || next == hangUp && !h.session.how.stays {
			return
		}
		if next == startTLS {
			h.startTLS()
		}
	}
}

func (h *host) startTLS() { h.conn = tls.Server(serverEnd{w: h.w}, serverTLS()) }

func (h *host) answer(replies []string) bool {
	if h.session.how.gathers {
		return h.say(strings.Join(replies, ""))
	}
	for _, reply := range replies {
		if !h.say(reply) {
			return false
		}
	}
	return true
}

// say writes text at once, unless the server's fault happens in it.
func (h *host) say(text string) bool {
	f := h.fault
	if _, encrypted := h.conn.(*tls.Conn); f == nil || !encrypted || f.at > h.said+len(text) {
		h.said += len(text)
		return h.write(text)
	}
	head, tail := text[:max(f.at-h.said, 0)], text[max(f.at-h.said, 0):]
	h.said += len(text)
	h.fault = nil
	switch {
	case f.insert == "":
		h.write(head)
		return false
	case f.apart:
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
