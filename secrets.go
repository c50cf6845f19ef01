package pop3

import (
	"slices"

	"github.com/seed-2d50cddb/pop3/internal/mask"
)

// secrets are what must not be shown of the logins of a session, each as a function that takes it out of a text. A
// server that repeats one in a reply, at once or much later, would carry it into an error and a trace otherwise.
type secrets []func(text string) string

const (
	minSecret  = 3  // the shortest one that is masked: fewer octets are in every text
	maxSecrets = 64 // the last ones, for a session with many attempts
)

// add notes a secret.
func (s *secrets) add(secret string) {
	if len(secret) >= minSecret {
		s.mask(mask.New(secret, "***"))
	}
}

// mask notes what takes a secret out of a text.
func (s *secrets) mask(f func(text string) string) {
	if len(*s) == maxSecrets {
		*s = slices.Delete(*s, 0, 1)
	}
	*s = append(*s, f)
}

// foreign makes an error of another package fit to be shown.
func (s secrets) foreign(err error) error {
	return foreignError{error: err, text: s.show([]byte(err.Error()), maxText)}
}

// show makes octets of the server fit to be shown: clean, with three stars for every secret. It cleans before it
// looks, since taking out characters can put the pieces of a secret together, and cuts behind that.
func (s secrets) show(line []byte, limit int) string {
	if len(s) == 0 {
		return clean(line, limit)
	}
	text := clean(line, 3*len(line)) // an octet that is not UTF-8 becomes three
	for _, mask := range s {
		text = mask(text)
	}
	return clean([]byte(text), limit)
}
