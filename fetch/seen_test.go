package fetch_test

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3/fetch"
)

// testEachSeen runs a test with both kinds of Seen, which must behave in the same way.
func testEachSeen(t *testing.T, test func(t *testing.T, seen fetch.Seen)) {
	t.Run("memory", func(t *testing.T) { test(t, new(fetch.MemorySeen)) })
	t.Run("file", func(t *testing.T) { test(t, fetch.FileSeen{Dir: filepath.Join(t.TempDir(), "deep", "seen")}) })
}

// load returns the entries of an account, in order.
func load(t *testing.T, seen fetch.Seen, account string) []fetch.Entry {
	t.Helper()
	h, err := seen.Open(t.Context(), account)
	require.NoError(t, err)
	defer func() { require.NoError(t, h.Close()) }()
	entries, err := h.Load(t.Context())
	require.NoError(t, err)
	slices.SortFunc(entries, func(a, b fetch.Entry) int {
		return cmp.Or(strings.Compare(a.UID, b.UID), cmp.Compare(a.Copy, b.Copy))
	})
	return entries
}

// change opens a history and changes it.
func change(t *testing.T, seen fetch.Seen, account string, do func(h fetch.History) error) {
	t.Helper()
	h, err := seen.Open(t.Context(), account)
	require.NoError(t, err)
	require.NoError(t, do(h))
	require.NoError(t, h.Close())
}

// unusualUIDs are unique-ids that must not become file names (H-119), and other unusual ones.
var unusualUIDs = []string{"../../etc/passwd", ".", "..", "nul", strings.Repeat("/", 70), `C:\x`, `"`, `\`, "<>&", "~",
	strings.Repeat("u", 1024), ""}

func TestSeen(t *testing.T) {
	testEachSeen(t, func(t *testing.T, seen fetch.Seen) {
		assert.Empty(t, load(t, seen, account))
		when := time.Date(2026, 11, 24, 8, 30, 0, 123456789, time.UTC)
		var entries []fetch.Entry
		for _, uid := range slices.Sorted(slices.Values(unusualUIDs)) {
			entries = append(entries, fetch.Entry{UID: uid, Size: 1 << 40, Octets: 2, Digest: "abc", Stored: when},
				fetch.Entry{UID: uid, Copy: 1, Short: true, Checked: when, Unsure: true, Stored: when, Deleted: when,
					Quits: 3, Missing: when})
		}
		change(t, seen, account, func(h fetch.History) error { return h.Save(t.Context(), entries...) })
		assert.Equal(t, entries, load(t, seen, account))
		assert.Empty(t, load(t, seen, "another@test"))

		entries[0].Octets = 7
		change(t, seen, account, func(h fetch.History) error { return h.Save(t.Context(), entries[0]) })
		assert.Equal(t, entries, load(t, seen, account))

		change(t, seen, account, func(h fetch.History) error { return h.Forget(t.Context(), entries[1:]...) })
		assert.Equal(t, entries[:1], load(t, seen, account))
	})
}

func TestSeenLock(t *testing.T) {
	testEachSeen(t, func(t *testing.T, seen fetch.Seen) {
		h, err := seen.Open(t.Context(), account)
		require.NoError(t, err)
		_, err = seen.Open(t.Context(), account)
		require.ErrorIs(t, err, fetch.ErrLocked)
		assert.Empty(t, load(t, seen, "another@test"))
		require.NoError(t, h.Close())
		assert.Empty(t, load(t, seen, account))
	})
}

// seenFile returns the only .seen file in a folder.
func seenFile(t *testing.T, dir string) string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*.seen"))
	require.NoError(t, err)
	require.Len(t, names, 1)
	return names[0]
}

// A crash may leave any part of the last line. Earlier entries can still be read, and new ones can be saved.
func TestFileSeenCutAtEveryOctet(t *testing.T) {
	dir := t.TempDir()
	seen := fetch.FileSeen{Dir: dir}
	change(t, seen, account, func(h fetch.History) error {
		for _, uid := range []string{"a", "b"} {
			if err := h.Save(t.Context(), fetch.Entry{UID: uid, Digest: "0123"}); err != nil {
				return err
			}
		}
		return nil
	})
	name := seenFile(t, dir)
	whole, err := os.ReadFile(name)
	require.NoError(t, err)
	last := strings.LastIndex(strings.TrimSuffix(string(whole), "\n"), "\n") + 1
	for n := last; n < len(whole)-1; n++ { // if only the line end is missing, the line is valid
		require.NoError(t, os.WriteFile(name, whole[:n], 0o600))
		change(t, seen, account, func(h fetch.History) error { return h.Save(t.Context(), fetch.Entry{UID: "c"}) })
		entries := load(t, seen, account)
		require.Len(t, entries, 2, n)
		assert.Equal(t, []string{"a", "c"}, []string{entries[0].UID, entries[1].UID})
	}
}

func TestFileSeenDamaged(t *testing.T) {
	tests := []struct {
		name   string
		damage func(string) string
		line   string
	}{
		{
			"a line in the middle",
			func(s string) string { return strings.Replace(s, `{"uid":"a"`, `{"u\x00d":"a"`, 1) },
			"line 2",
		},
		{"another account", func(s string) string { return strings.Replace(s, account, "mallory@test", 1) }, "line 1"},
		{
			"a newer version",
			func(s string) string { return strings.Replace(s, `"fetch":1`, `"fetch":2`, 1) },
			"line 1",
		},
		{"another format", func(string) string { return "hello\n" }, "line 1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			seen := fetch.FileSeen{Dir: t.TempDir()}
			change(t, seen, account, func(h fetch.History) error {
				return h.Save(t.Context(), fetch.Entry{UID: "a"}, fetch.Entry{UID: "b"})
			})
			name := seenFile(t, seen.Dir)
			content, err := os.ReadFile(name)
			require.NoError(t, err)
			damaged := tt.damage(string(content))
			require.NoError(t, os.WriteFile(name, []byte(damaged), 0o600))
			for range 2 { // if the first Open kept the lock, the second one would fail
				_, err = seen.Open(t.Context(), account)
				require.ErrorContains(t, err, tt.line)
				require.ErrorContains(t, err, "move the file away")
			}
			after, err := os.ReadFile(name)
			require.NoError(t, err)
			assert.Equal(t, damaged, string(after), "the file is unchanged")
		})
	}
}

// Entries that other programs write are read too.
func TestFileSeenWrittenByOthers(t *testing.T) {
	const (
		first     = `{"fetch":1,"account":"alice@test"}`
		a         = `{"uid":"a"}` + "\n"
		b         = `{"uid":"b"}` + "\n"
		goneA     = `{"uid":"a","gone":true}` + "\n"
		unsyncedB = `{"uid":"b","boot":"1"}` + "\n"
		synced    = `{"synced":true}` + "\n"
	)
	tests := []struct {
		name, content string
		want          []string // unique-ids
	}{
		{"entries", first + "\n" + `{"uid":"a","stored":"2026-11-24T08:30:00Z"}` + "\n" + b, []string{"a", "b"}},
		{"no line end", first + "\n" + a + strings.TrimSuffix(b, "\n"), []string{"a", "b"}},
		{"CRLF", first + "\r\n" + `{"uid":"a"}` + "\r\n", []string{"a"}},
		{"unknown names", first + "\n" + `{"uid":"a","colour":"red"}` + "\n", []string{"a"}},
		{"gone", first + "\n" + a + b + goneA, []string{"b"}},
		{"unsynced, another boot", first + "\n" + a + unsyncedB, []string{"a"}},
		{"synced", first + "\n" + unsyncedB + synced + `{"uid":"c","boot":"1"}` + "\n", []string{"b"}},
		{"unsynced, then not", first + "\n" + unsyncedB + b, []string{"b"}},
		{"unsynced, then gone", first + "\n" + unsyncedB + `{"uid":"b","gone":true}` + "\n" + synced, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			seen := fetch.FileSeen{Dir: t.TempDir()}
			require.NoError(t, os.WriteFile(seen.Path(account), []byte(tt.content), 0o600))
			for range 2 { // the first Open may rewrite the file
				var uids []string
				for _, e := range load(t, seen, account) {
					uids = append(uids, e.UID)
				}
				assert.Equal(t, tt.want, uids)
			}
		})
	}
}

// C-109: a state file that is a symbolic link is not followed.
func TestFileSeenLinks(t *testing.T) {
	for _, suffix := range []string{".seen", ".seen.new", ".lock"} {
		t.Run(suffix, func(t *testing.T) {
			seen := fetch.FileSeen{Dir: t.TempDir()}
			victim := filepath.Join(t.TempDir(), "victim")
			const content = "of somebody else\n"
			require.NoError(t, os.WriteFile(victim, []byte(content), 0o600))
			name := strings.TrimSuffix(seen.Path(account), ".seen") + suffix
			require.NoError(t, os.Symlink(victim, name))
			h, err := seen.Open(t.Context(), account)
			if suffix == ".seen.new" { // the link is removed, because it prevents a new file
				require.NoError(t, err)
				require.NoError(t, h.Save(t.Context(), fetch.Entry{UID: "a"}))
				require.NoError(t, h.Close())
				assert.Len(t, load(t, seen, account), 1)
			} else if runtime.GOOS != "windows" {
				require.Error(t, err)
			}
			after, err := os.ReadFile(victim)
			require.NoError(t, err)
			assert.Equal(t, content, string(after))
		})
	}
}

// The file does not grow with every change. Other users cannot read it.
func TestFileSeenIsRenewed(t *testing.T) {
	seen := fetch.FileSeen{Dir: t.TempDir()}
	for i := range 200 {
		change(t, seen, account, func(h fetch.History) error {
			e := fetch.Entry{UID: fmt.Sprint(i)}
			if err := h.Save(t.Context(), e); err != nil {
				return err
			}
			if i%10 == 0 {
				return nil
			}
			return h.Forget(t.Context(), e)
		})
	}
	assert.Len(t, load(t, seen, account), 20)
	content, err := os.ReadFile(seenFile(t, seen.Dir))
	require.NoError(t, err)
	assert.Less(t, strings.Count(string(content), "\n"), 150)
	files, err := os.ReadDir(seen.Dir)
	require.NoError(t, err)
	assert.Len(t, files, 2)
	for _, f := range files {
		info, err := f.Info()
		require.NoError(t, err)
		assert.Zero(t, info.Mode().Perm()&0o077)
	}
}

func TestFileSeenCannotCreateFolder(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	_, err := fetch.FileSeen{Dir: filepath.Join(file, "x")}.Open(t.Context(), account)
	require.ErrorContains(t, err, "fetch: seen messages of")
}

// BenchmarkFileSeen opens a history with many entries and saves one more, like a run with one new message. Time and
// memory must grow linearly.
func BenchmarkFileSeen(b *testing.B) {
	for _, n := range []int{1_000, 10_000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			seen := fetch.FileSeen{Dir: b.TempDir()}
			entries := make([]fetch.Entry, n)
			for i := range entries {
				entries[i] = fetch.Entry{UID: fmt.Sprintf("%016x", i), Size: 4000, Octets: 4000,
					Digest: strings.Repeat("0123456789abcdef", 4), Stored: time.Unix(1_790_000_000, 0)}
			}
			add := func(entries ...fetch.Entry) {
				h, err := seen.Open(b.Context(), account)
				require.NoError(b, err)
				loaded, err := h.Load(b.Context())
				require.NoError(b, err)
				require.True(b, len(loaded) == 0 || len(loaded) == n)
				require.NoError(b, h.Save(b.Context(), entries...))
				require.NoError(b, h.Close())
			}
			add(entries...)
			b.ReportAllocs()
			for b.Loop() {
				add(entries[0])
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/entry")
		})
	}
}
