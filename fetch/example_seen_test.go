package fetch_test

import (
	"context"
	"fmt"
	"io"

	"github.com/seed-2d50cddb/pop3/fetch"
)

// A table is a Seen that uses a table of a database. In this example, maps take the place of the database.
type table struct {
	rows   map[row]fetch.Entry
	locked map[string]bool // the accounts that are open
}

// A row is the primary key of a row in the table.
type row struct {
	account, uid string
	copy         int
}

func (t *table) Open(_ context.Context, account string) (fetch.History, error) {
	if t.locked[account] { // SELECT pg_try_advisory_lock(…)
		return nil, fmt.Errorf("account %s: %w", account, fetch.ErrLocked)
	}
	t.locked[account] = true
	return history{t, account}, nil
}

// A history contains the rows of one account.
type history struct {
	*table
	account string
}

func (h history) Load(context.Context) (entries []fetch.Entry, err error) { // SELECT … WHERE account = …
	for r, e := range h.rows {
		if r.account == h.account {
			entries = append(entries, e)
		}
	}
	return entries, nil
}

func (h history) Save(_ context.Context, entries ...fetch.Entry) error { // INSERT … ON CONFLICT … DO UPDATE
	for _, e := range entries {
		h.rows[row{h.account, e.UID, e.Copy}] = e
	}
	return nil
}

func (h history) Forget(_ context.Context, entries ...fetch.Entry) error { // DELETE FROM seen WHERE …
	for _, e := range entries {
		delete(h.rows, row{h.account, e.UID, e.Copy})
	}
	return nil
}

func (h history) Close() error {
	delete(h.locked, h.account) // SELECT pg_advisory_unlock(…)
	return nil
}

// Remember messages in a database of your own.
func ExampleSeen() {
	server, connect := exampleServer()
	defer server.Close()
	f := fetch.Fetcher{
		Connect: connect,
		Sink: fetch.SinkFunc(func(_ context.Context, _ fetch.Item, r io.Reader) error {
			_, err := io.Copy(io.Discard, r)
			return err
		}),
		Seen:    &table{rows: make(map[row]fetch.Entry), locked: make(map[string]bool)},
		Account: "alice",
	}
	for range 2 {
		report, err := f.Run(context.Background())
		fmt.Println(report.Delivered, "stored now,", report.Known, "known", err)
	}
	// Output:
	// 3 stored now, 0 known <nil>
	// 0 stored now, 3 known <nil>
}
