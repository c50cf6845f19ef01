package pop3

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// C-043: a dead address does not use up the time for the other addresses.
func TestDialFirst(t *testing.T) {
	refused, unreachable := errors.New("refused"), errors.New("unreachable")
	type attempt struct {
		after time.Duration // when the address answers; below 0 means never
		err   error
	}
	const never = -1
	for _, tt := range []struct {
		name     string
		attempts []attempt
		winner   int // index of the address that is used; -1 if all fail
		err      error
		duration time.Duration
	}{
		{"one address", []attempt{{20 * time.Millisecond, nil}}, 0, nil, 20 * time.Millisecond},
		{"one address, refused", []attempt{{0, refused}}, -1, refused, 0},
		{"C-043 the first one is dead", []attempt{{never, nil}, {10 * time.Millisecond, nil}}, 1, nil,
			260 * time.Millisecond},
		{"C-043 two are dead", []attempt{{never, nil}, {never, nil}, {0, nil}}, 2, nil, 500 * time.Millisecond},
		{"the first one refuses", []attempt{{0, refused}, {time.Millisecond, nil}}, 1, nil, time.Millisecond},
		{"the first one is slow and wins", []attempt{{300 * time.Millisecond, nil}, {time.Second, nil}}, 0, nil,
			300 * time.Millisecond},
		{"all fail", []attempt{{100 * time.Millisecond, refused}, {0, unreachable}}, -1, refused,
			100 * time.Millisecond},
		{"all are dead", []attempt{{never, nil}, {never, nil}}, -1, os.ErrDeadlineExceeded, time.Minute},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				open := map[string]net.Conn{}
				dial := func(ctx context.Context, addr string) (net.Conn, error) {
					a := tt.attempts[addr[0]-'a']
					var answered <-chan time.Time
					if a.after >= 0 {
						answered = time.After(a.after)
					}
					select {
					case <-ctx.Done():
						return nil, os.ErrDeadlineExceeded
					case <-answered:
						if a.err != nil {
							return nil, a.err
						}
						near, far := net.Pipe()
						t.Cleanup(func() { far.Close() })
						open[addr] = near
						return near, nil
					}
				}
				var addrs []string
				for i := range tt.attempts {
					addrs = append(addrs, string(rune('a'+i)))
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				start := time.Now()
				nc, err := dialFirst(ctx, addrs, dial)
				assert.Equal(t, tt.duration, time.Since(start))
				if tt.winner < 0 {
					assert.ErrorIs(t, err, tt.err)
					assert.Nil(t, nc)
					return
				}
				require.NoError(t, err)
				assert.Equal(t, open[addrs[tt.winner]], nc)
			})
		})
	}
}

// A connection that succeeds too late is closed.
func TestDialFirstClosesOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var ends []net.Conn
		_, err := dialFirst(t.Context(), []string{"a", "b"}, func(context.Context, string) (net.Conn, error) {
			time.Sleep(time.Second)
			near, far := net.Pipe()
			mu.Lock()
			defer mu.Unlock()
			ends = append(ends, far)
			return near, nil
		})
		require.NoError(t, err)
		require.Len(t, ends, 2)
		closed := 0
		for _, end := range ends {
			end.SetReadDeadline(time.Now().Add(time.Second))
			if _, err := end.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
				closed++
			}
		}
		assert.Equal(t, 1, closed)
	})
}

func TestAlternateFamilies(t *testing.T) {
	var ips []netip.Addr
	for _, s := range []string{"2001:db8::1", "2001:db8::2", "2001:db8::3", "192.0.2.1", "::ffff:192.0.2.2"} {
		ips = append(ips, netip.MustParseAddr(s))
	}
	var got []string
	for _, ip := range alternateFamilies(ips) {
		got = append(got, ip.Unmap().String())
	}
	assert.Equal(t, []string{"2001:db8::1", "192.0.2.1", "2001:db8::2", "192.0.2.2", "2001:db8::3"}, got)
	assert.Empty(t, alternateFamilies(nil))
}

// C-107: a proxy of an unknown kind is an error. The error does not contain the password.
func TestEnvironmentDialer(t *testing.T) {
	for _, tt := range []struct{ setting, wantErr string }{
		{"", ""},
		{"socks5://127.0.0.1:1080", ""},
		{"socks5h://bob:opensesame@127.0.0.1", ""},
		{"http://bob:opensesame@127.0.0.1:3128", `"http"`},
		{"socks4://127.0.0.1:1080", `"socks4"`},
		{"socks://127.0.0.1:1080", `"socks"`},
		{"127.0.0.1:1080", "not the URL"},
		{"localhost:1080", "not the URL"},
		{"opensesame", "not the URL"},
		{"socks5://", "not the URL"},
		{"socks5://127.0.0.1:x", "not the URL"},
		{"socks5://127.0.0.1:0", "port"},
		{"socks5://127.0.0.1:70000", "port"},
		{"so\x1bcks5://opensesame", "not the URL"},
	} {
		for _, name := range []string{"ALL_PROXY", "all_proxy"} {
			t.Setenv("ALL_PROXY", "")
			t.Setenv("all_proxy", "")
			t.Setenv(name, tt.setting)
			dialer, err := environmentDialer(new(net.Conn))
			if tt.wantErr == "" {
				assert.NoError(t, err, tt.setting)
				assert.NotNil(t, dialer)
				continue
			}
			assert.ErrorContains(t, err, tt.wantErr, tt.setting)
			assert.ErrorContains(t, err, "ALL_PROXY", tt.setting)
			assert.ErrorContains(t, err, "socks5://host:port", tt.setting)
			assert.NotContains(t, err.Error(), "opensesame")
			_, err = DialTLS(t.Context(), "192.0.2.1", &Options{Timeout: time.Nanosecond})
			assert.ErrorContains(t, err, "ALL_PROXY", "nothing was dialled")
		}
	}
}

// C-105: the connection must lead to the address and port that were dialed.
func TestIsLoopback(t *testing.T) {
	for _, tt := range []struct {
		host, port, remoteAddr string
		want                   bool
	}{
		{"localhost", "110", "127.0.0.1:110", true},
		{"LOCALHOST.", "110", "[::1]:110", true},
		{"localhost", "pop3", "127.0.0.1:110", true},
		{"127.0.0.1", "110", "127.0.0.1:110", true},
		{"::1", "110", "[::1]:110", true},
		{"127.0.0.1", "110", "127.0.0.2:110", false},
		{"127.0.0.1", "110", "[::1]:110", false},
		{"localhost", "110", "127.0.0.1:1080", false},
		{"localhost", "110", "192.0.2.1:110", false},
		{"pop.example.org", "110", "127.0.0.1:110", false},
		{"192.0.2.1", "110", "127.0.0.1:110", false},
		{"192.0.2.1", "110", "192.0.2.1:110", false},
		{"localhost", "no-such-service", "127.0.0.1:110", false},
	} {
		addr, err := net.ResolveTCPAddr("tcp", tt.remoteAddr)
		require.NoError(t, err)
		custom := &Options{DialContext: func(context.Context, string, string) (net.Conn, error) { return nil, nil }}
		near, far := net.Pipe()
		t.Cleanup(func() { near.Close(); far.Close() })
		assert.Equal(t, tt.want, custom.isLoopback(tt.host, tt.port, remoteAddrConn{near, addr}), "%+v", tt)
		viaProxy := new(Options).isLoopback(tt.host, tt.port, remoteAddrConn{near, addr})
		assert.False(t, viaProxy, "through a proxy: %+v", tt)
	}
}

// A remoteAddrConn is a connection with the given remote address.
type remoteAddrConn struct {
	net.Conn
	remote net.Addr
}

func (r remoteAddrConn) RemoteAddr() net.Addr { return r.remote }
