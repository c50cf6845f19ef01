package mask_test

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/seed-2d50cddb/pop3/internal/mask"
)

func TestNew(t *testing.T) {
	const secret = "p ä+/%"
	octets := hex.EncodeToString([]byte(secret))
	for name, form := range map[string]string{
		"plain":           secret,
		"hex":             octets,
		"hex, upper case": strings.ToUpper(octets),
		"query":           url.QueryEscape(secret),
		"path":            url.PathEscape(secret),
		"percent":         "%" + strings.ReplaceAll(fmt.Sprintf("% X", secret), " ", "%"),
	} {
		t.Run(name, func(t *testing.T) {
			assert.Equal(t, "a***b", mask.New(secret, "***")("a"+form+"b"))
		})
	}
}

// Whatever stands before and behind a secret, its base64 is found.
func TestBase64(t *testing.T) {
	for _, secret := range []string{"secret", "secret7", "secret78", "ÿþ~~?>ÿ", "tanstaaftanstaaf"} {
		for before := range 7 {
			for behind := range 4 {
				text := strings.Repeat("a", before) + secret + strings.Repeat("z", behind)
				for _, enc := range []*base64.Encoding{
					base64.StdEncoding, base64.URLEncoding, base64.RawStdEncoding, base64.RawURLEncoding,
				} {
					got := mask.New(secret, "***")(enc.EncodeToString([]byte(text)))
					assert.Contains(t, got, "***", "%q with %d before", secret, before)
				}
			}
		}
	}
}

// The base64 of a short secret is in many a text by chance, and is left there.
func TestShort(t *testing.T) {
	assert.Equal(t, "Yes", mask.New("a", "***")("Yes"))
	assert.Equal(t, "Yes", mask.New("", "***")("Yes"))
	assert.Equal(t, "b***d", mask.New("a", "***")("bad"))
}

func TestPrintsNothing(t *testing.T) {
	holder := struct{ f any }{mask.New("tanstaaf", "***")}
	assert.NotContains(t, fmt.Sprintf("%v %+v %#v %s", holder, holder, holder, holder), "tanstaaf")
}
