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
}

// Caller makes calls. It makes each at most once, follows no redirect, and answers by the time that its context ends. AnswerNotRun is only
// for what surely never left this process.
type Caller interface {
	Call(ctx context.Context, r *Request) saga.Outcome
}

// Config says how to coordinate.
type Config struct {
	// Store holds the journal. Required.
	Store store.Store
	// Caller makes the calls. Required.
	Caller Caller
	// Name is this replica's, unique among those that share the store. Required.
	Name string
	// Alone says that nobody else can use the store, as one that is embedded: whoever is said to own a shard is gone, and is not waited for.
	Alone bool
	// Shards is how many there are, the same for all that share the store: 1 to 64; default 8.
	Shards int
	// MaxCalls is how many calls may be under way per shard. Default 128.
	MaxCalls int
	// Retention is how long a saga is kept that has ended. Default 24 h.
	Retention time.Duration
	// LeaseTTL is how long a shard waits for an owner that is gone. Default 10 s.
	LeaseTTL time.Duration
	// Log is where it says what happens. Required.
	Log *slog.Logger
}

func (c Config) withDefaults() Config {
	c.Shards = cmp.Or(c.Shards, 8)
	c.MaxCalls = cmp.Or(c.MaxCalls, 128)
	c.Retention = cmp.Or(c.Retention, 24*time.Hour)
	c.LeaseTTL = cmp.Or(c.LeaseTTL, 10*time.Second)
	return c
}
