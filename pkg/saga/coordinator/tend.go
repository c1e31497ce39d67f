package coordinator

import (
	"context"
	"errors"
	"math"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/store"
)

// ErrFull says that the store is so full that only what was taken before may be written. Nothing that was taken is thrown away for it.
var ErrFull = errors.New("the store of sagas is too full to take another one: it is emptied as those end whose retention time is over")

const (
	// tendEvery is how often the store is looked after.
	tendEvery = time.Second
	// Each batch leaves what it has replaced: at 80,000 writes a second of 600 B, 2 GiB last for 40 s. It is forgotten once the store has grown by so much, or by
	// such a share of its quota, and every compactEvery, but no more often: etcd goes through all its keys for it.
	compactBytes = 32 << 20
	compactShare = 64
	compactEvery = 10 * time.Second
	// Of the quota, so much in use, or of the file, and no saga is taken any more: the others need room to end.
	maxInUse = 0.5
	maxFile  = 0.8
	// The file is defragmented when half of it is free, at the most every defragEvery, since the store answers nobody meanwhile, and batches soon use again
	// what little there is below minDefrag. It does not wait for that where the file nears the bound above, and enough of it is free to be worth it.
	minDefrag   = 64 << 20
	defragEvery = 10 * time.Minute
	nearFile    = 0.7
	nearFree    = 0.2
	nearEvery   = 10 * time.Second
)

// tend looks after the store until ctx ends: it forgets what was replaced, and sees whether there is room.
func (c *Coordinator) tend(ctx context.Context) {
	tick := time.NewTicker(tendEvery)
	defer tick.Stop()
	var h history
	var defragmented time.Time
	for ; ctx.Err() == nil; await(ctx, tick.C) {
		if size, err := c.config.Store.Size(ctx); err == nil {
			c.see(size)
			h.see(size)
			if c.config.Defragment != nil && isSparse(size, time.Since(defragmented)) {
				c.defragment(ctx, size)
				defragmented = time.Now()
			}
		}
		head, err := c.config.Store.Head(ctx)
		if err != nil {
			continue
		}
		// Up to where it was the last time: who pages through the store at a revision of a moment ago goes on.
		if h.isDue(time.Now()) {
			if err := c.config.Store.Compact(ctx, h.last); err == nil || errors.Is(err, store.ErrCompacted) {
				h.forgotten(time.Now())
			}
		}
		h.last = head.Revision
	}
}

// history is what batches have replaced.
type history struct {
	last, compacted int64 // revisions: the newest when it was looked at, and up to which all is forgotten
	at              time.Time
	least, now      int64 // bytes in use: since then, and now
	worth           int64 // growth that is worth forgetting it
}

func (h *history) see(s store.Size) {
	h.now, h.least, h.worth = s.InUse, min(h.least, s.InUse), compactBytes
	if s.Quota > 0 {
		h.worth = min(h.worth, s.Quota/compactShare)
	}
}

func (h *history) isDue(now time.Time) bool {
	return h.last > h.compacted && (now.Sub(h.at) >= compactEvery || h.now-h.least >= h.worth)
}

func (h *history) forgotten(now time.Time) { h.compacted, h.at, h.least = h.last, now, h.now }

// await waits for a tick, or for ctx to end.
func await(ctx context.Context, tick <-chan time.Time) {
	select {
	case <-ctx.Done():
	case <-tick:
	}
}

// takeRoom reports whether a saga of so many bytes may be taken, which takes their room. A flood may fill a small store before it is looked at again.
func (c *Coordinator) takeRoom(bytes int) bool {
	return c.room.Load() > 0 && c.room.Add(-int64(bytes)) > 0
}

// see notes how much room the store has.
func (c *Coordinator) see(s store.Size) {
	room := int64(math.MaxInt64)
	if s.Quota > 0 {
		room = int64(maxInUse*float64(s.Quota)) - s.InUse
		if float64(s.Bytes) >= maxFile*float64(s.Quota) {
			room = 0
		}
	}
	full := room <= 0
	if before := c.room.Swap(room); before <= 0 == full {
		return
	}
	if full {
		c.config.Log.Warn("the store of sagas is nearly full: no more are taken", "in_use", s.InUse, "bytes", s.Bytes, "quota", s.Quota)
	} else {
		c.config.Log.Info("the store of sagas has room again", "in_use", s.InUse, "bytes", s.Bytes, "quota", s.Quota)
	}
}

// isSparse reports whether a file is to be defragmented, so long after the last time.
func isSparse(s store.Size, since time.Duration) bool {
	free := float64(s.Bytes - s.InUse)
	if s.Quota > 0 && float64(s.Bytes) >= nearFile*float64(s.Quota) && free >= nearFree*float64(s.Bytes) {
		return since >= nearEvery
	}
	return s.Bytes >= minDefrag && free >= 0.5*float64(s.Bytes) && since >= defragEvery
}

func (c *Coordinator) defragment(ctx context.Context, before store.Size) {
	begun := time.Now()
	if err := c.config.Defragment(ctx); err != nil {
		c.config.Log.Warn("the store of sagas cannot be defragmented; it is tried again", "error", err)
		return
	}
	after, err := c.config.Store.Size(ctx)
	if err != nil {
		return // it says so where it is read next
	}
	c.config.Log.Info("the store of sagas is defragmented", "bytes_before", before.Bytes, "bytes", after.Bytes, "took", time.Since(begun))
}
