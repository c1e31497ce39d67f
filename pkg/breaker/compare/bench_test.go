package compare

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/failsafe-go/failsafe-go"
	"github.com/failsafe-go/failsafe-go/circuitbreaker"
	"github.com/fairlead-mesh/fairlead/pkg/breaker"
	"github.com/sony/gobreaker/v2"
)

var errBroken = errors.New("broken")

// rule is what opens the breaker: each library is set to the same.
type rule string

const (
	row   rule = "row"   // five failures in a row
	ratio rule = "ratio" // half of at least twenty requests in ten buckets of a second
)

func newFairlead(b *testing.B, r rule) *breaker.Breaker {
	c := breaker.Default()
	c.OpenTime, c.MaxOpenTime = time.Hour, time.Hour
	if r == row {
		c.FailureRatio = 0
	} else {
		c.ConsecutiveFailures = 0
	}
	br, err := breaker.New(c)
	if err != nil {
		b.Fatal(err)
	}
	return br
}

func gobreakerSettings(r rule) gobreaker.Settings {
	s := gobreaker.Settings{Timeout: time.Hour}
	s.ReadyToTrip = func(c gobreaker.Counts) bool { return c.ConsecutiveFailures >= 5 }
	if r == ratio {
		s.Interval, s.BucketPeriod = 10*time.Second, time.Second
		s.ReadyToTrip = func(c gobreaker.Counts) bool {
			return c.Requests >= 20 && c.TotalFailures*2 >= c.Requests
		}
	}
	return s
}

func newFailsafe(r rule) circuitbreaker.CircuitBreaker[any] {
	s := circuitbreaker.NewBuilder[any]().WithDelay(time.Hour)
	if r == row {
		return s.WithFailureThreshold(5).Build()
	}
	return s.WithFailureRateThreshold(0.5, 20, 10*time.Second).Build()
}

// BenchmarkExecute calls a function through the breaker.
func BenchmarkExecute(b *testing.B) {
	ctx := context.Background()
	for _, r := range []rule{row, ratio} {
		for _, passing := range []bool{true, false} {
			name := func(library string) string { return fmt.Sprintf("%s/%s/%s", r, verb(passing), library) }
			br := newFairlead(b, r)
			run(b, name("fairlead"), passing, func(err error) error {
				return br.Execute(ctx, func(context.Context) error { return err })
			})
			gb := gobreaker.NewCircuitBreaker[any](gobreakerSettings(r))
			run(b, name("gobreaker"), passing, func(err error) error {
				_, err = gb.Execute(func() (any, error) { return nil, err })
				return err
			})
			fs := failsafe.With(newFailsafe(r))
			run(b, name("failsafe"), passing, func(err error) error {
				return fs.Run(func() error { return err })
			})
		}
	}
}

// BenchmarkPermit asks for permission and reports, without a function: the way of a
// proxy. Fairlead is given the time, which the others read themselves; so its clock
// is measured with it once, as a proxy would read it, and once without.
func BenchmarkPermit(b *testing.B) {
	born := time.Now()
	for _, r := range []rule{row, ratio} {
		for _, passing := range []bool{true, false} {
			name := func(library string) string { return fmt.Sprintf("%s/%s/%s", r, verb(passing), library) }
			clocked := newFairlead(b, r)
			run(b, name("fairlead with clock"), passing, func(err error) error {
				return permit(clocked, err, int64(time.Since(born)))
			})
			given := newFairlead(b, r)
			run(b, name("fairlead"), passing, func(err error) error { return permit(given, err, 1) })
			gb := gobreaker.NewTwoStepCircuitBreaker[any](gobreakerSettings(r))
			run(b, name("gobreaker"), passing, func(err error) error {
				done, refused := gb.Allow()
				if refused == nil {
					done(err)
				}
				return refused
			})
			fs := newFailsafe(r)
			run(b, name("failsafe"), passing, func(err error) error {
				switch {
				case !fs.TryAcquirePermit():
					return circuitbreaker.ErrOpen
				case err != nil:
					fs.RecordFailure()
				default:
					fs.RecordSuccess()
				}
				return nil
			})
		}
	}
}

func permit(br *breaker.Breaker, err error, now int64) error {
	p, ok := br.Acquire(now)
	switch {
	case !ok:
		return breaker.ErrOpen
	case err != nil:
		br.Done(p, breaker.Failure, now)
	default:
		br.Done(p, breaker.Success, now)
	}
	return nil
}

func verb(passing bool) string {
	if passing {
		return "passing"
	}
	return "refusing"
}

// run measures call at 1 and at 64 goroutines, after having opened the breaker if it
// is not to pass.
func run(b *testing.B, name string, passing bool, call func(error) error) {
	b.Helper()
	if !passing {
		for range 40 {
			_ = call(errBroken)
		}
	}
	if err := call(nil); (err == nil) != passing {
		b.Fatalf("%s: %v", name, err)
	}
	b.Run(name+"/1", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_ = call(nil)
		}
	})
	b.Run(name+"/64", func(b *testing.B) {
		b.ReportAllocs()
		b.SetParallelism(max(1, 64/runtime.GOMAXPROCS(0)))
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				_ = call(nil)
			}
		})
	})
}
