package coordinator

import (
	"cmp"
	"context"
	"log/slog"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/saga"
	"github.com/fairlead-mesh/fairlead/pkg/store"
)

// Request is a call as it goes out.
type Request struct {
	Saga    string
	Step    string
	Undo    bool // the compensation
	Attempt int  // from 1
	// Key is the Idempotency-Key: the same for all attempts.
	Key string
	// Fence is higher for each owner of the saga than for those before it.
	Fence int64
	// Call is what is called, its templates filled in.
	Call *saga.Call
	// Trace is the traceparent of the span that the saga was started in; empty: there is none.
	Trace string
}

// Caller makes calls. It makes each at most once, follows no redirect, and answers by the time that its context ends. AnswerNotRun is only
// for what surely never left this process.
type Caller interface {
	Call(ctx context.Context, r *Request) saga.Outcome
}

// Meter is told what happens, to count it. Many goroutines call it at once, the loops of shards among them: it must not block.
type Meter interface {
	// Called is told of each call that was made: whether it was a compensation, what was answered, and how long that took.
	Called(undo bool, a saga.Answer, took time.Duration)
	// Committed is told of each batch that was written: of how many operations it is, and how long that took, tries that failed among it.
	Committed(ops int, took time.Duration)
	// Full is told of each saga that was not taken because the store is nearly full.
	Full()
}

// noMeter counts nothing.
type noMeter struct{}

func (noMeter) Called(bool, saga.Answer, time.Duration) {}
func (noMeter) Committed(int, time.Duration)            {}
func (noMeter) Full()                                   {}

// Config says how to coordinate.
type Config struct {
	// Store holds the journal. Required.
	Store store.Store
	// Caller makes the calls. Required.
	Caller Caller
	// Name is this replica's, unique among those that share the store. Required.
	Name string
	// Addr is the host:port where the others reach this replica's gRPC API. Empty: they do not, and answer ErrNotOwner for its shards.
	Addr string
	// Alone says that nobody else can use the store, as one that is embedded: whoever is said to own a shard is gone, and is not waited for.
	Alone bool
	// Defragment gives the free pages of the store's file back, which is done when half of them are free: the store answers nobody meanwhile. nil: the store
	// is for others to look after, as a cluster is.
	Defragment func(context.Context) error
	// Shards is how many there are, the same for all that share the store: 1 to 64; default 8.
	Shards int
	// MaxCalls is how many calls may be under way per shard, and MaxServiceCalls how many of them to one service, so that one that hangs does not
	// keep the sagas of others waiting. Defaults 512 and 128.
	MaxCalls, MaxServiceCalls int
	// Retention is how long a saga is kept that has ended. Default 24 h.
	Retention time.Duration
	// LeaseTTL is how long a shard waits for an owner that is gone. Default 10 s.
	LeaseTTL time.Duration
	// Trace returns the traceparent of the span in which a saga is started, from the context of Start. Default: there is none.
	Trace func(context.Context) string
	// Meter is told what happens. Default: nobody is.
	Meter Meter
	// Log is where it says what happens. Required.
	Log *slog.Logger
}

func (c Config) withDefaults() Config {
	c.Shards = cmp.Or(c.Shards, 8)
	c.MaxCalls = cmp.Or(c.MaxCalls, 512)
	c.MaxServiceCalls = cmp.Or(c.MaxServiceCalls, 128)
	c.Retention = cmp.Or(c.Retention, 24*time.Hour)
	c.LeaseTTL = cmp.Or(c.LeaseTTL, 10*time.Second)
	if c.Trace == nil {
		c.Trace = func(context.Context) string { return "" }
	}
	if c.Meter == nil {
		c.Meter = noMeter{}
	}
	return c
}
