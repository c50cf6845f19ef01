package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/alecthomas/kong"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/seed-2d50cddb/pop3/examples/fleet/accounts"
)

// An accountsCommand lists or changes the records of the selected accounts in NATS. It replaces only the revisions that
// it has read.
type accountsCommand struct {
	Names     []string `arg:"" optional:"" help:"Names of accounts."`
	Host      string   `help:"Select accounts of this host."`
	Code      string   `help:"Select accounts whose last error has this code, such as AUTH, timeout, refused."`
	State     string   `help:"Select accounts in this state: aside, failing, removed, sound."`
	MissingIn string   `placeholder:"FILE" help:"Select accounts that are missing in this accounts file."`
	All       bool     `help:"Select all accounts."`
}

// Run is called by kong.
func (c *accountsCommand) Run(ctx context.Context, k *kong.Context, js jetstream.JetStream) error {
	op := k.Selected().Name
	if op != "list" && !c.All && len(c.Names) == 0 && c.Host+c.Code+c.State+c.MissingIn == "" {
		return errors.New("no accounts selected; give names, --host, --code, --state, --missing-in or --all")
	}
	bus, err := openSoon(ctx, js)
	if err != nil {
		return err
	}
	selected, err := c.selected(ctx, bus)
	if err != nil {
		return err
	}
	if missing := len(c.Names) - len(selected); missing > 0 {
		fmt.Printf("%d of the names have no record\n", missing)
	}
	if op == "list" {
		return list(selected)
	}
	var writes []write
	for _, e := range selected {
		r := e.record
		switch {
		case !r.Removed.IsZero():
			continue
		case op == "remove":
			r.Removed = bus.clock.now()
		case r.Aside != (op == "release"):
			continue
		default:
			r = r.Again()
		}
		writes = append(writes, write{e.key, r, e.revision})
	}
	written := bus.writeAll(ctx, writes)
	fmt.Printf("%d changed\n", written)
	if failed := len(writes) - written; failed > 0 {
		return fmt.Errorf("%d records have changed in the meantime, or could not be written; try again", failed)
	}
	return nil
}

// selected reads the records and returns those that the flags select.
func (c *accountsCommand) selected(ctx context.Context, bus *Bus) (selected []*entry, err error) {
	var inFile map[string]accounts.Account
	if c.MissingIn != "" {
		f, err := accounts.Open(c.MissingIn, "")
		if err != nil {
			return nil, err
		}
		inFile, _, _ = f.All()
	}
	records, err := bus.records.Watch(ctx, "*", jetstream.IgnoreDeletes())
	if err != nil {
		return nil, err
	}
	defer records.Stop()
	for kve := range records.Updates() {
		if kve == nil {
			break // the existing records were read
		}
		r, err := recordOf(kve)
		if err != nil {
			slog.Warn("a record is ignored", "error", err)
		} else if _, isInFile := inFile[kve.Key()]; !isInFile && (c.Host == "" || c.Host == r.Host) &&
			(c.Code == "" || c.Code == r.Code) && (c.State == "" || c.State == r.state()) &&
			(len(c.Names) == 0 || slices.Contains(c.Names, r.Account)) {
			selected = append(selected, &entry{key: kve.Key(), record: r, revision: kve.Revision(),
				due: r.due(kve.Created())})
		}
	}
	return selected, ctx.Err()
}

// state returns the state of an account as list shows it.
func (r Record) state() string {
	switch {
	case !r.Removed.IsZero():
		return "removed"
	case r.Aside:
		return "aside"
	case r.Fails > 0:
		return "failing"
	}
	return "sound"
}

// list prints accounts, sorted by the time at which they are due.
func list(selected []*entry) error {
	slices.SortFunc(selected, func(a, b *entry) int { return a.due.Compare(b.due) })
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ACCOUNT\tHOST\tSTATE\tDUE\tPOLLED\tFAILURES\tCODE\tERROR")
	for _, e := range selected {
		r := e.record
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%d\t%s\t%s\n", r.Account, r.Host, r.state(),
			e.due.Local().Format(time.DateTime), r.Polled.Local().Format(time.DateTime), r.Fails, r.Code, r.Error)
	}
	return w.Flush()
}

// A hostsCommand pauses or resumes hosts.
type hostsCommand struct {
	Hosts []string `arg:"" help:"Hosts, as in the accounts file."`
}

// Run is called by kong.
func (c *hostsCommand) Run(ctx context.Context, k *kong.Context, js jetstream.JetStream) error {
	bus, err := openSoon(ctx, js)
	if err != nil {
		return err
	}
	for _, host := range c.Hosts {
		rule, _ := json.Marshal(hostRule{host, k.Selected().Name == "pause"})
		if _, err := bus.records.Put(ctx, hostPrefix+accounts.KeyOf(host), rule); err != nil {
			return err
		}
	}
	return nil
}

// openSoon opens the streams for a command of an operator. It waits at most a minute for them.
func openSoon(ctx context.Context, js jetstream.JetStream) (*Bus, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return openBus(ctx, js)
}
