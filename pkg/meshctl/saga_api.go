package meshctl

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/flags"
	sagas "github.com/fairlead-mesh/fairlead/pkg/saga/client"
)

// dial returns the control plane's API of sagas. again is asked after each failure that may pass.
func (s *sagaCommands) dial(again func(*sagas.Error) bool) (*sagas.Client, error) {
	return sagas.New(sagas.Config{
		Addresses: []string{string(s.address)}, Timeout: s.timeout, UserAgent: "meshctl/" + flags.Version(), Again: again,
	})
}

// notNow reports whether a control plane has said that it cannot say now, as while the saga's shard has no owner.
func notNow(no *sagas.Error) bool {
	return no.Status == http.StatusServiceUnavailable && no.Message != ""
}

// ask does something with the API within the timeout. What can be asked twice is asked again while the saga's shard has no owner.
func (s *sagaCommands) ask(ctx context.Context, do func(context.Context, *sagas.Client) error) error {
	api, err := s.dial(notNow)
	if err != nil {
		return err
	}
	defer api.Close()
	bounded, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	return s.explain(bounded, do(bounded, api))
}

// explain puts into words that the answer was no, or that there was none until ctx ended.
func (s *sagaCommands) explain(ctx context.Context, err error) error {
	var no *sagas.Error
	switch {
	case !errors.As(err, &no):
		return err
	case no.Message != "":
		return refused(no.Message)
	case no.Status == http.StatusOK:
		return fmt.Errorf("what listens at %s answers otherwise than a control plane does (%s): is --control-plane-http right?", s.address, plain(no.Err.Error()))
	case no.Status != 0:
		return fmt.Errorf("what listens at %s answers %q, and so does not serve sagas: is --control-plane-http right?", s.address,
			fmt.Sprintf("%d %s", no.Status, http.StatusText(no.Status)))
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return fmt.Errorf("the control plane at %s did not answer within %v", s.address, s.timeout)
	}
	return fmt.Errorf("the control plane at %s cannot be reached (%s): does it run, and is --control-plane-http right?", s.address, plain(no.Err.Error()))
}

// refused is what a control plane says, a line for each fault.
func refused(message string) error {
	lines := strings.Split(strings.TrimSpace(message), "\n")
	for i, line := range lines {
		lines[i] = plain(line)
	}
	if len(lines) == 1 {
		return errors.New(lines[0])
	}
	return errors.New("the control plane refused:\n  " + strings.Join(lines, "\n  "))
}

// outage is how long nothing fails before what fails then is told again.
const outage = time.Minute

// await returns a saga once it has ended or is parked, or the timeout is over. A control plane that was there and goes away is waited for: sagas
// outlive it. Who does not answer at first is not there.
func (s *sagaCommands) await(ctx context.Context, id string, timeout time.Duration) (*sagas.Saga, error) {
	reached := false
	var failed time.Time // the last time
	api, err := s.dial(func(no *sagas.Error) bool {
		if reached = reached || notNow(no); !reached {
			return false
		}
		if time.Since(failed) > outage {
			_, _ = fmt.Fprintf(s.err, "waiting on: %v\n", s.explain(ctx, no))
		}
		failed = time.Now()
		return true
	})
	if err != nil {
		return nil, err
	}
	defer api.Close()
	waiting, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	v, err := api.Get(waiting, id)
	if err == nil && !v.Settled() {
		reached = true
		v, err = api.Wait(waiting, id)
	}
	if waiting.Err() == nil || ctx.Err() != nil {
		return v, s.explain(ctx, err)
	}
	if err == nil { // it came with the last moment
		return v, nil
	}
	err = s.ask(ctx, func(ctx context.Context, _ *sagas.Client) error { // one last look, which does not wait
		once, err := s.dial(func(*sagas.Error) bool { return false })
		if err == nil {
			defer once.Close()
			v, err = once.Get(ctx, id)
		}
		return err
	})
	return v, err
}
