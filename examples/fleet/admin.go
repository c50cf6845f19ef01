package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/alecthomas/kong"
	"github.com/nats-io/nats.go"
)

// A command is what an operator asks of the leading scheduler.
type command struct {
	Op string
	accountsCommand
	hostsCommand
	reconcileCommand
}

// A reply is a part of the answer. The last one has Done set.
type reply struct {
	Text, Error string
	Done        bool
}

// An accountsCommand is about the accounts that it selects.
type accountsCommand struct {
	Names []string `arg:"" optional:"" help:"Names of accounts."`
	Host  string   `help:"Accounts of this host."`
	Code  string   `help:"Accounts whose last error has this code, such as AUTH, timeout, refused."`
	State string   `help:"Accounts in this state: aside, failing, removed, sound."`
	All   bool     `help:"All accounts."`
}

// A hostsCommand is about hosts.
type hostsCommand struct {
	Hosts []string `arg:"" help:"Hosts, as in the accounts file."`
}

// A reconcileCommand makes the records follow the accounts file of the leading scheduler.
type reconcileCommand struct {
	Force  bool `help:"Remove accounts however many they are."`
	DryRun bool `help:"Only count what would be changed."`
}

func (c *accountsCommand) Run(ctx context.Context, k *kong.Context, g *globals) error {
	return g.send(ctx, command{Op: k.Selected().Name, accountsCommand: *c})
}

func (c *hostsCommand) Run(ctx context.Context, k *kong.Context, g *globals) error {
	return g.send(ctx, command{Op: k.Selected().Name, hostsCommand: *c})
}

func (c *reconcileCommand) Run(ctx context.Context, k *kong.Context, g *globals) error {
	return g.send(ctx, command{Op: k.Selected().Name, reconcileCommand: *c})
}

// send asks the leading scheduler, and prints what it replies.
func (g *globals) send(ctx context.Context, c command) error {
	nc, err := g.NATS.connect(g.Name)
	if err != nil {
		return err
	}
	defer nc.Close()
	text, _ := json.Marshal(c)
	for tries := 0; ; tries++ {
		replies, err := nc.SubscribeSync(nc.NewRespInbox())
		if err == nil {
			err = nc.PublishRequest(commandSubject, replies.Subject, text)
		}
		var r reply
		if r, err = next(ctx, replies, err, oneTry); err != nil && tries < 10 && pause(ctx, time.Second/2) {
			continue // no scheduler leads at the moment
		}
		for ; err == nil && !r.Done; r, err = next(ctx, replies, nil, time.Minute) {
			fmt.Print(r.Text)
		}
		if err != nil {
			return fmt.Errorf("no scheduler answers: %w", err)
		}
		fmt.Print(r.Text)
		if r.Error != "" {
			return errors.New(r.Error)
		}
		return nil
	}
}

func next(ctx context.Context, replies *nats.Subscription, err error, wait time.Duration) (r reply, _ error) {
	if err != nil {
		return r, err
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	msg, err := replies.NextMsgWithContext(ctx)
	if err != nil {
		return r, err
	}
	return r, json.Unmarshal(msg.Data, &r)
}

// command does what an operator asks. The first reply says that it is being done.
func (s *Scheduler) command(ctx context.Context, c command, msg *nats.Msg) {
	respond := func(r reply) {
		text, _ := json.Marshal(r)
		msg.Respond(text)
	}
	respond(reply{})
	var text string
	var writes []write
	chosen, err := s.choose(c)
	switch c.Op {
	case "list":
		for part := range slices.Chunk([]byte(table(chosen)), 500_000) {
			respond(reply{Text: string(part)})
		}
	case "reconcile":
		var drop int
		writes, drop = s.changes(s.clock.now())
		if !c.Force && !c.DryRun {
			err = tooMany(drop, len(s.planner.entries))
		}
	case "release", "poll":
		if missing := len(c.Names) - len(chosen); missing > 0 {
			text = fmt.Sprintf("%d of the names are not there\n", missing)
		}
		for _, e := range chosen {
			if e.record.Removed.IsZero() && e.record.Aside == (c.Op == "release") {
				writes = append(writes, write{e.key, "due now", s.Policy.Again(e.record, s.clock.now()), e.revision})
			}
		}
	}
	if err != nil {
		respond(reply{Error: err.Error(), Done: true})
		return
	}
	go func() { respond(s.carryOut(ctx, c, text, writes)) }()
}

// carryOut writes, and returns the last reply: how many records were written, and what for.
func (s *Scheduler) carryOut(ctx context.Context, c command, text string, writes []write) reply {
	counts := make(map[string]int)
	if c.DryRun {
		for _, w := range writes {
			counts[w.kind]++
		}
	} else {
		counts = s.Bus.writeAll(ctx, writes)
	}
	left := len(writes)
	for _, kind := range slices.Sorted(maps.Keys(counts)) {
		text += fmt.Sprintf("%d %s\n", counts[kind], kind)
		left -= counts[kind]
	}
	for _, host := range c.Hosts {
		value, _ := json.Marshal(hostRule{host, c.Op == "pause"})
		if _, err := s.Bus.hosts.Put(ctx, hex.EncodeToString([]byte(host)), value); err != nil {
			return reply{Error: err.Error(), Done: true}
		}
	}
	r := reply{Text: text, Done: true}
	if left > 0 {
		r.Error = fmt.Sprintf("%d records have changed in the meantime, or could not be written; try again", left)
	}
	return r
}

// choose returns the accounts that a command is about.
func (s *Scheduler) choose(c command) (chosen []*entry, err error) {
	all := c.Host == "" && c.Code == "" && c.State == "" && len(c.Names) == 0
	if all && !c.All && (c.Op == "release" || c.Op == "poll") {
		return nil, errors.New("which accounts? Give names, --host, --code, --state or --all")
	}
	for _, e := range s.planner.entries {
		if r := e.record; (c.Host == "" || c.Host == r.Host) && (c.Code == "" || c.Code == r.Code) &&
			(c.State == "" || c.State == stateOf(r)) && (len(c.Names) == 0 || slices.Contains(c.Names, r.Account)) {
			chosen = append(chosen, e)
		}
	}
	return chosen, nil
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

// table lists accounts, those that are due first at its top.
func table(chosen []*entry) string {
	slices.SortFunc(chosen, func(a, b *entry) int { return a.due.Compare(b.due) })
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "ACCOUNT\tHOST\tSTATE\tDUE\tPOLLED\tFAILURES\tCODE\tERROR")
	for _, e := range chosen {
		r := e.record
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%d\t%s\t%s\n", r.Account, r.Host, stateOf(r),
			e.due.Local().Format(time.DateTime), r.Polled.Local().Format(time.DateTime), r.Fails, r.Code, r.Error)
	}
	w.Flush()
	return text.String()
}
