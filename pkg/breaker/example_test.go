package breaker_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/breaker"
)

// Guard a function call.
func ExampleBreaker_Execute() {
	config := breaker.Default()
	config.ConsecutiveFailures = 2
	b, err := breaker.New(config)
	if err != nil {
		fmt.Println(err)
		return
	}
	for range 3 {
		err = b.Execute(context.Background(), func(context.Context) error {
			return errors.New("no route to host")
		})
		fmt.Println(err, "|", errors.Is(err, breaker.ErrOpen))
	}
	// Output:
	// no route to host | false
	// no route to host | false
	// breaker is open | true
}

// Guard requests with one reading of the clock for each, as a proxy does.
func ExampleBreaker_Acquire() {
	share, _ := breaker.NewShare(50, 4) // at most half of four hosts
	b, err := breaker.New(breaker.Default(), breaker.WithShare(share))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer b.Retire() // when the host is removed
	born := time.Now()
	now := int64(time.Since(born))

	permit, ok := b.Acquire(now)
	if !ok {
		fmt.Println("pick another host; this one may be probed at", b.ReadyAt())
		return
	}
	b.Done(permit, breaker.Success, now)
	fmt.Println(b.State(now), permit.Probe())
	// Output: closed false
}
