package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func get(t *testing.T, url string) string {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get(url)
	require.NoError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, resp.StatusCode, string(body))
	return string(body)
}

func TestStatusPage(t *testing.T) {
	f := newFleet(t, 3, 2)
	bad := f.accounts[keyOf(labUser(0))]
	bad.Name, bad.Password = "<script>@x", "wrong"
	f.add(bad)
	f.enlist(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	start(t, func(ctx context.Context) error { return new(status).serve(ctx, f.bus, l) })
	url := "http://" + l.Addr().String() + "/"
	for _, name := range []string{"w1", "w2"} {
		w := f.worker(joinBus(t, f.nats, testAckWait), name, quick)
		start(t, w.Run)
		start(t, func(ctx context.Context) error {
			tellMetrics(ctx, w.Bus.nc, w.Metrics.registry, name, testAckWait/50)
			return nil
		})
	}
	start(t, f.scheduler(f.bus, quick).Run)
	eventually(t, "all are polled", f.polled)
	eventually(t, "it is on the page", func() bool {
		metrics := get(t, url+"metrics")
		return sumOf(metrics, "fleet_messages_total") == 6 && sumOf(metrics, "fleet_polls_total") == 4
	})
	metrics := get(t, url+"metrics")
	assert.Contains(t, metrics, `fleet_errors_total{code="AUTH",worker="w`)
	assert.Contains(t, metrics, `fleet_replies_total{command="RETR",status="ok",worker="w`)
	assert.Contains(t, metrics, `worker="w1"`)
	assert.Contains(t, metrics, `worker="w2"`)
	var page string
	eventually(t, "the records are there", func() bool {
		page = get(t, url)
		return strings.Contains(page, "invalid user name or password") && strings.Contains(page, "<b>4</b>")
	})
	assert.Contains(t, page, "&lt;script&gt;@x", "names are text")
	assert.NotContains(t, page, "wrong")
}

// sumOf adds the values of a metric over all labels; all of them are small numbers here.
func sumOf(metrics, name string) (sum int) {
	for line := range strings.Lines(metrics) {
		if strings.HasPrefix(line, name+"{") {
			value := strings.TrimSpace(line[strings.LastIndexByte(line, ' ')+1:])
			for _, digit := range value {
				sum += int(digit - '0')
			}
		}
	}
	return sum
}

func TestOctetsAndLateness(t *testing.T) {
	assert.Equal(t, "0 B", octets(0))
	assert.Equal(t, "4.1 kB", octets(4096))
	assert.Equal(t, "1.5 TB", octets(1.5e12))
	assert.Equal(t, "in time", lateness(-1))
	assert.Equal(t, "1.01s late", lateness(1.01e9))
}
