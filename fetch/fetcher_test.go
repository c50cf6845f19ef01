package fetch_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3/fetch"
)

func TestRun(t *testing.T) {
	all := mails("one", "two", "three")
	d := newMaildrop(all)
	sink := new(store)
	f := fetch.Fetcher{Connect: d.connect, Sink: sink, Seen: new(fetch.MemorySeen), Account: account}

	report, err := f.Run(t.Context())
	require.NoError(t, err)
	assert.Equal(t, fetch.Report{Listed: 3, Delivered: 3, Octets: report.Octets, Sessions: 1}, report)
	assert.Equal(t, texts(all), texts(sink.got))
	assert.Equal(t, texts(all), texts(d.Left(user)))

	report, err = f.Run(t.Context())
	require.NoError(t, err)
	assert.Equal(t, fetch.Report{Listed: 3, Known: 3, Sessions: 1}, report)

	d.Deliver(user, mails("four")...)
	f.Delete = true
	report, err = f.Run(t.Context())
	require.NoError(t, err)
	assert.Equal(t, fetch.Report{Listed: 4, Known: 3, Delivered: 1, Octets: report.Octets, Deleted: 4, Sessions: 1}, report)
	assert.Empty(t, d.Left(user))
	assert.Len(t, sink.got, 4)
}
