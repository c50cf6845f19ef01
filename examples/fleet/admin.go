package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// A selection is the accounts that a command is about.
type selection struct {
	host, code, state string
	all               bool
	names             []string
}

func (s *selection) flags(f *flag.FlagSet) {
	f.StringVar(&s.host, "host", "", "accounts of this `host`")
	f.StringVar(&s.code, "code", "", "accounts whose last error has this `code`, such as AUTH, timeout, refused")
	f.StringVar(&s.state, "state", "", "accounts in this `state`: aside, failing, removed, sound")
	f.BoolVar(&s.all, "all", false, "all accounts")
}

func stateOf(r Record) string {
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

func (s *selection) has(r Record) bool {
	return (s.host == "" || s.host == r.Host) && (s.code == "" || s.code == r.Code) &&
		(s.state == "" || s.state == stateOf(r)) && (len(s.names) == 0 || slices.Contains(s.names, r.Account))
}

// command runs a command of an operator on all records that are selected.
func (s *selection) command(ctx context.Context, name string, args []string, needed bool,
	do func(ctx context.Context, b *Bus, chosen []*entry) error) error {
	var c config
	f := c.flags(name)
	s.flags(f)
	if err := c.parse(f, args); err != nil {
		return err
	}
	s.names = f.Args()
	if needed && !s.all && s.host == "" && s.code == "" && s.state == "" && len(s.names) == 0 {
		return errors.New("which accounts? Give names, -host, -code, -state or -all")
	}
	return c.withBus(ctx, func(ctx context.Context, b *Bus) error {
		records, err := b.allRecords(ctx)
		if err != nil {
			return err
		}
		var chosen []*entry
		for _, e := range records {
			if s.has(e.record) {
				chosen = append(chosen, e)
			}
		}
		if missing := len(s.names) - len(chosen); missing > 0 {
			defer fmt.Fprintf(os.Stderr, "%d of the names are not there\n", missing)
		}
		return do(ctx, b, chosen)
	})
}

// withBus connects for one command.
func (c *config) withBus(ctx context.Context, do func(ctx context.Context, b *Bus) error) error {
	nc, err := c.nats.connect(c.name)
	if err != nil {
		return err
	}
	defer nc.Close()
	opening, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var b *Bus
	err = waitFor(opening, nc, func(ctx context.Context) (err error) {
		b, err = openBus(ctx, nc)
		return err
	})
	if err != nil {
		return err
	}
	return do(ctx, b)
}

// allRecords reads all records.
func (b *Bus) allRecords(ctx context.Context) (map[string]*entry, error) {
	watch, err := b.records.WatchAll(ctx, jetstream.IgnoreDeletes())
	if err != nil {
		return nil, err
	}
	defer watch.Stop()
	p := newPlanner(DefaultLimits)
	for {
		select {
		case kve, open := <-watch.Updates():
			if !open {
				return nil, errors.New("the connection to NATS was lost")
			}
			if kve == nil {
				return p.entries, nil
			}
			if r, err := recordOf(kve); err == nil {
				p.set(kve.Key(), r, kve.Revision(), kve.Created())
			}
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func list(ctx context.Context, args []string) error {
	var s selection
	return s.command(ctx, "list", args, false, func(_ context.Context, _ *Bus, chosen []*entry) error {
		slices.SortFunc(chosen, func(a, b *entry) int { return a.due.Compare(b.due) })
		w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "ACCOUNT\tHOST\tSTATE\tDUE\tPOLLED\tFAILURES\tCODE\tERROR")
		for _, e := range chosen {
			r := e.record
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%d\t%s\t%s\n", r.Account, r.Host, stateOf(r),
				e.due.Local().Format(time.DateTime), r.Polled.Local().Format(time.DateTime), r.Fails, r.Code, r.Error)
		}
		return w.Flush()
	})
}

func release(ctx context.Context, args []string) error {
	s := selection{}
	return s.command(ctx, "release", args, true, func(ctx context.Context, b *Bus, chosen []*entry) error {
		chosen = slices.DeleteFunc(chosen, func(e *entry) bool { return stateOf(e.record) != "aside" })
		return b.makeDue(ctx, chosen)
	})
}

func pollNow(ctx context.Context, args []string) error {
	s := selection{}
	return s.command(ctx, "poll", args, true, func(ctx context.Context, b *Bus, chosen []*entry) error {
		chosen = slices.DeleteFunc(chosen, (*entry).idle)
		return b.makeDue(ctx, chosen)
	})
}

// makeDue makes accounts due now, with their failures forgotten. An account that is being polled is left alone.
func (b *Bus) makeDue(ctx context.Context, chosen []*entry) error {
	changes := make([]change, 0, len(chosen))
	for _, e := range chosen {
		changes = append(changes, change{e.key, changed, Account{}})
	}
	counts := eachChange(ctx, changes, func(ctx context.Context, c change) error {
		kve, err := getKey(ctx, b.records, c.key)
		if err != nil {
			return err
		}
		r, err := recordOf(kve)
		if err != nil {
			return err
		}
		_, err = updateKey(ctx, b.records, c.key, Policy{}.Again(r, date()).value(), kve.Revision())
		return err
	})
	fmt.Printf("%d accounts are due now\n", counts[changed])
	if counts[changed] < len(chosen) {
		return fmt.Errorf("%d of %d accounts could not be changed", len(chosen)-counts[changed], len(chosen))
	}
	return nil
}

func pauseHosts(ctx context.Context, args []string) error { return ruleHosts(ctx, "pause", args, true) }
func resumeHosts(ctx context.Context, args []string) error {
	return ruleHosts(ctx, "resume", args, false)
}

func ruleHosts(ctx context.Context, command string, args []string, paused bool) error {
	var c config
	f := c.flags(command)
	if err := c.parse(f, args); err != nil {
		return err
	}
	if f.NArg() == 0 {
		return errors.New("which hosts?")
	}
	return c.withBus(ctx, func(ctx context.Context, b *Bus) error {
		for _, host := range f.Args() {
			value, _ := json.Marshal(hostRule{host, paused})
			if _, err := b.hosts.Put(ctx, hex.EncodeToString([]byte(host)), value); err != nil {
				return err
			}
		}
		return nil
	})
}

// reconcile does once what the leading scheduler does all the time, and removes many accounts only if it is forced to.
func reconcile(ctx context.Context, args []string) error {
	var c config
	f := c.flags("reconcile")
	c.accountFlags(f)
	c.serviceFlags(f)
	force := f.Bool("force", false, "remove accounts however many they are")
	dry := f.Bool("dry-run", false, "only count what would be changed")
	f.DurationVar(&c.keep, "keep-removed", 7*24*time.Hour, "how long the data of removed accounts is kept")
	if err := c.parse(f, args); err != nil {
		return err
	}
	accounts, err := c.openAccounts()
	if err != nil {
		return err
	}
	return c.withBus(ctx, func(ctx context.Context, b *Bus) error {
		records, err := b.allRecords(ctx)
		if err != nil {
			return err
		}
		all, drop := changes(records, accounts.accounts(), time.Now(), c.keep)
		if err := tooMany(drop, len(records)); err != nil && !*force && !*dry {
			return err
		}
		s := c.scheduler(b, accounts)
		do := func(ctx context.Context, one change) error { return s.change(ctx, one, time.Now()) }
		if *dry {
			do = func(context.Context, change) error { return nil }
		}
		counts := eachChange(ctx, all, do)
		fmt.Printf("%d added, %d changed, %d removed, %d purged\n", counts[added], counts[changed], counts[removed],
			counts[purged])
		if left := len(all) - counts[added] - counts[changed] - counts[removed] - counts[purged]; left > 0 {
			return fmt.Errorf("%d records have changed in the meantime; run it again", left)
		}
		return nil
	})
}
