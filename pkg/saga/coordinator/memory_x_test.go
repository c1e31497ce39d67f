package coordinator_test

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/fairlead-mesh/fairlead/pkg/saga"
	"github.com/fairlead-mesh/fairlead/pkg/saga/coordinator"
	"github.com/fairlead-mesh/fairlead/pkg/store/memstore"
)

// unknowns answers each call that nobody knows what came of it.
type unknowns struct{}

func (unknowns) Call(context.Context, *coordinator.Request) saga.Outcome {
	return saga.Outcome{Answer: saga.AnswerUnknown, Text: "503 Service Unavailable"}
}

// heap is what is reachable, in bytes.
func heap() int64 {
	runtime.GC()
	runtime.GC() // what finalizers have let go
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc) //nolint:gosec // a machine has less
}

// maxWaitingBytes is what a saga may keep in memory that waits, beside what the store has of it.
const maxWaitingBytes = 4 << 10

func TestASagaThatWaitsIsSmall(t *testing.T) {
	n := 5_000
	if isRace {
		n = 1_000
	}
	synctest.Test(t, func(t *testing.T) {
		s := memstore.New()
		defer func() { _ = s.Close() }()
		c, stop := begin(t, s, unknowns{}, "one")
		defer stop()
		var starting sync.WaitGroup
		for first := range 100 {
			starting.Go(func() {
				for i := first; i < n; i += 100 {
					start(t, c, waiting(t, fmt.Sprint("order-", i)))
				}
			})
		}
		starting.Wait()
		synctest.Wait() // all were called once, and wait for an hour or less
		if census := c.Census(); census.Running != int64(n) {
			t.Fatalf("%+v", census)
		}
		with := heap()
		stop()
		runtime.KeepAlive(c)
		c = nil
		each := (with - heap()) / int64(n)
		runtime.KeepAlive(s)
		switch {
		case each < 100:
			t.Errorf("a saga that waits keeps %d B: what it keeps was not measured", each)
		case each > maxWaitingBytes:
			t.Errorf("a saga that waits keeps %d B, more than %d", each, maxWaitingBytes)
		}
	})
}

// waiting is a saga of three steps, with bodies of 1 kB.
func waiting(t *testing.T, id string) *saga.Definition {
	t.Helper()
	step := func(name string) string {
		return fmt.Sprintf(`{"name":%q,"action":{"service":"a","path":"/a","body":"%01000d"},"compensate":{"service":"a","path":"/undo"},"retry":{"backoff":"1h","max":"1h"}}`, name, 1)
	}
	d, err := saga.ParseDefinition(fmt.Appendf(nil, `{"id":%q,"steps":[%s,%s,%s]}`, id, step("reserve"), step("charge"), step("ship")))
	if err != nil {
		t.Error(err)
	}
	return d
}
