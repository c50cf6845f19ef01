package main

import (
	"context"
	"fmt"
	"image/color"
	"image/png"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3/examples/fleet/accounts"
	"github.com/seed-2d50cddb/pop3/examples/fleet/lab"
)

// TestPageInBrowser shows the page in a real browser, in light and in dark. FLEET_PAGE is the number of accounts (100
// by default), and FLEET_PICTURES a folder for the pictures.
func TestPageInBrowser(t *testing.T) {
	chromium, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("NOT RUN: chromium is not installed (apt-get install chromium)")
	}
	t.Parallel()
	count, _ := strconv.Atoi(os.Getenv("FLEET_PAGE"))
	count = max(100, count)
	r := newRig(t, lab.Size{Boxes: 50, Servers: 3, Messages: 2, Bytes: 2000, Deliver: 10})
	for n := range 5 {
		r.lab.Accounts[n].Password = "wrong"
	}
	for n := 50; n < count; n++ { // these hosts do not listen
		host := fmt.Sprintf("127.0.%d.1", 1+n%60)
		r.lab.Accounts = append(r.lab.Accounts,
			accounts.Account{Name: lab.User(n) + "@" + host, Addr: host + ":1", User: "u", Password: "p"})
	}
	r.lab.Accounts[0].Name = "<script>document.title='mine'</script>@127.0.0.2"
	require.NoError(t, r.lab.Save())
	s := r.start("scheduler", "scheduler-1", "--first", "1h", "--min", "1s", "--max", "2s", "--backoff", "1m",
		"--refusals", "2")
	for _, name := range []string{"worker-1", "worker-2"} {
		r.start("worker", name, "--sessions", "50")
	}
	eventually(t, "all accounts are known", func() bool { return s.metric("fleet_accounts") == float64(count) })
	for _, host := range []string{"127.0.0.2", "127.0.0.3", "127.0.0.4"} { // the other hosts are due within an hour
		r.try("poll", "--host", host) // fails for a record that has changed meanwhile, because its account was polled
	}
	eventually(t, "there is trouble", func() bool { return r.record(r.lab.Accounts[0].Name).Aside })
	at := servingAt.FindStringSubmatch(s.log.String())[1]
	for scheme, dark := range map[string]bool{"light": false, "dark": true} {
		dir := os.Getenv("FLEET_PICTURES")
		if dir == "" {
			dir = t.TempDir()
		}
		picture := filepath.Join(dir, "page-"+scheme+".png")
		browse(t, chromium, at, dark, "--screenshot="+picture)
		assert.Equal(t, dark, isDark(t, picture), scheme)
	}
	dom := browse(t, chromium, at, false, "--dump-dom")
	assert.Contains(t, dom, fmt.Sprintf("<b>%d</b><span>accounts", count))
	assert.Contains(t, dom, "worker-2")
	assert.Contains(t, dom, "<title>fleet</title>", "names of accounts are text")
	assert.Contains(t, dom, "&lt;script&gt;document.title")
}

// browse has the browser open a page, and returns what it prints.
func browse(t *testing.T, chromium, url string, dark bool, what string) string {
	t.Helper()
	scheme := "1" // the light color scheme
	if dark {
		scheme = "0"
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
		"--no-first-run", "--hide-scrollbars", "--disable-background-networking", "--disable-component-update",
		"--disable-sync", "--user-data-dir="+t.TempDir(), "--blink-settings=preferredColorScheme="+scheme,
		"--window-size=1100,1500", what, url)
	out, err := cmd.Output()
	require.NoError(t, err)
	return string(out)
}

// isDark reports whether the corner of a picture is dark.
func isDark(t *testing.T, name string) bool {
	t.Helper()
	f, err := os.Open(name)
	require.NoError(t, err)
	defer f.Close()
	picture, err := png.Decode(f)
	require.NoError(t, err)
	return color.GrayModel.Convert(picture.At(2, 2)).(color.Gray).Y < 100
}
