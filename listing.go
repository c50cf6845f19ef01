package pop3

import (
	"cmp"
	"context"
	"errors"
)

// Listing is [Client.ListAll] and [Client.UidlAll] in one, in one round trip where the server pipelines, joined by
// number in the order of the scan listing. A message that only one of them has, since it just came, is without UID
// or is left out. It belongs before [Client.Dele], which says why.
//
// Where the server does not have UIDL (it announces capabilities without it, or none and refuses) the UIDs are
// empty and the error is nil. A refusal of an announced UIDL is an error, since a program that tells new from old
// by UID would lose mail.
func (c *Client) Listing(ctx context.Context) ([]MessageInfo, error) {
	list := command{verb: "LIST"}
	if err := c.start(ctx, list, StateTransaction); err != nil {
		return nil, err
	}
	defer c.conn.end()
	if _, err := c.pipelines(ctx); err != nil { // it may bring the capabilities
		return nil, err
	}
	ks := []command{list, {verb: "UIDL"}}
	if c.caps != nil && !c.caps.Has("UIDL") {
		ks = ks[:1]
	}
	infos, uids, err := c.readListings(ctx, ks)
	if err != nil {
		return nil, err
	}
	c.sizes.learn(infos)
	joinUIDs(infos, uids)
	return infos, nil
}

// readListings carries out LIST and perhaps UIDL. Both replies are read, whatever the first one says.
func (c *Client) readListings(ctx context.Context, ks []command) (infos, uids []MessageInfo, err error) {
	b, err := c.newBatch(ctx, commands{
		n:    len(ks),
		at:   func(i int) command { return ks[i] },
		size: func(int) int64 { return 0 },
		most: len(ks),
	})
	if err != nil {
		return nil, nil, err
	}
	defer b.close()
	infos, err = b.listing(addScan)
	if c.conn.closed() != nil || len(ks) == 1 {
		return infos, nil, err
	}
	uids, failed := b.listing(addUnique)
	if refusal, ok := errors.AsType[*Error](failed); ok && err == nil && refusal.Code == "" {
		failed = c.forgiveUIDL(ctx, refusal)
	}
	return infos, uids, cmp.Or(err, failed)
}

// listing reads the next reply, which is that to LIST or UIDL.
func (b *batch) listing(add func(*listing, []byte) error) (infos []MessageInfo, err error) {
	k := b.at(b.done)
	if _, err = b.status(); err == nil {
		infos, err = b.c.readListing(k, add)
	}
	b.c.trace.done(b.ctx, k, 0, err)
	b.answered()
	return infos, err
}

// forgiveUIDL returns nil if the refusal of UIDL only says that the server does not have the command, and otherwise
// the refusal.
func (c *Client) forgiveUIDL(ctx context.Context, refusal *Error) error {
	if err := c.needCaps(ctx); err != nil {
		return err
	}
	if c.caps.Has("UIDL") {
		return refusal
	}
	return nil
}

// joinUIDs gives infos the unique-ids of uids, by number. The two lists are nearly always in the same order.
func joinUIDs(infos, uids []MessageInfo) {
	var byNum map[int]string
	for i := range infos {
		if i < len(uids) && uids[i].Num == infos[i].Num {
			infos[i].UID = uids[i].UID
			continue
		}
		if byNum == nil {
			byNum = make(map[int]string, len(uids))
			for _, info := range uids {
				byNum[info.Num] = info.UID
			}
		}
		infos[i].UID = byNum[infos[i].Num]
	}
}

// listAll carries out LIST or UIDL.
func (c *Client) listAll(ctx context.Context, verb string, add func(*listing, []byte) error) ([]MessageInfo, error) {
	k := command{verb: verb}
	var infos []MessageInfo
	err := c.list(ctx, k, func() (err error) {
		infos, err = c.readListing(k, add)
		return err
	}, StateTransaction)
	return infos, err
}

// readListing reads the lines of LIST or UIDL.
func (c *Client) readListing(k command, add func(*listing, []byte) error) ([]MessageInfo, error) {
	var l listing
	if err := c.lines(k, maxListEntries, func(line []byte) error { return add(&l, line) }); err != nil {
		return nil, err
	}
	infos := l.whole()
	if l.unordered && repeats(infos) {
		return nil, c.nonsense(k, nil, malformed("a message number comes twice"))
	}
	return infos, nil
}
