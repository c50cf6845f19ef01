package fetch_test

import (
	"context"
	"fmt"
	"io"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3/fetch"
	"github.com/seed-2d50cddb/pop3/pop3test"
)

// BenchmarkSecondRun fetches a maildrop whose messages are all known (C-071). The time for each message should not grow
// with the number of messages, whatever their unique-ids are.
func BenchmarkSecondRun(b *testing.B) {
	for _, mode := range []string{"unique", "none", "equal"} {
		for _, n := range []int{1000, 10_000, 100_000} {
			b.Run(fmt.Sprint(mode, "/", n), func(b *testing.B) {
				messages := make([][]byte, n)
				var uids []string
				for i := range messages {
					messages[i] = fmt.Appendf(nil, "Subject: %d\r\n\r\nx\r\n", i)
					if mode == "equal" {
						uids = append(uids, "same")
					}
				}
				drop := newMaildrop(messages, uids...)
				if mode == "none" {
					drop.Caps = []string{"PIPELINING", "EXPIRE NEVER"}
					drop.SetFaults(pop3test.Fault{At: "UIDL", Reply: "-ERR no"})
				}
				f := fetch.Fetcher{Connect: drop.connect, Seen: new(fetch.MemorySeen), Account: account,
					Sink: fetch.SinkFunc(func(_ context.Context, _ fetch.Item, r io.Reader) error {
						_, err := io.Copy(io.Discard, r)
						return err
					})}
				_, err := f.Run(b.Context())
				require.NoError(b, err)
				for b.Loop() {
					report, err := f.Run(b.Context())
					require.NoError(b, err)
					require.Equal(b, n, report.Known)
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/message")
			})
		}
	}
}
