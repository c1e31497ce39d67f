package play

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// Statement is something that the play says of the mesh, and whether it was so.
type Statement struct {
	Act, What string
	OK        bool
	Detail    string // what was seen
}

// Stage is where the acts take place.
type Stage struct {
	Mesh *Mesh
	Load *Load
	// Pace stretches the waits; 1 makes the play last about half a minute.
	Pace float64
	// Announce is told of each act before it begins, State of each statement after it
	// was checked. They are called on the goroutine of Play.
	Announce func(title, lookAt string)
	State    func(Statement)

	usual time.Duration // how long a request takes when all is well

	mu         sync.Mutex
	act        string
	statements []Statement // guarded by mu
	sagas      []Saga      // guarded by mu; those that were started, as they were last seen
}

// Statements returns what was said so far.
func (s *Stage) Statements() []Statement {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.statements)
}

// startSaga starts the saga of an order.
func (s *Stage) startSaga(ctx context.Context, order, card string) error {
	if err := s.Mesh.StartSaga(ctx, order, card); err != nil {
		return err
	}
	s.mu.Lock()
	s.sagas = append(s.sagas, Saga{ID: order})
	s.mu.Unlock()
	return nil
}

// glance bounds how long Sagas asks: what is shown is not to stand still because the control plane does.
const glance = 200 * time.Millisecond

// Sagas returns the sagas that were started, in that order. Those that the control plane says nothing of are as they were seen last.
func (s *Stage) Sagas(ctx context.Context) []Saga {
	s.mu.Lock()
	sagas := slices.Clone(s.sagas)
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, glance)
	defer cancel()
	for i, old := range sagas {
		now, err := s.Mesh.Saga(ctx, old.ID)
		if err != nil {
			break
		}
		sagas[i] = now
	}
	s.mu.Lock()
	copy(s.sagas, sagas)
	s.mu.Unlock()
	return sagas
}

func (s *Stage) announce(act, title, lookAt string) {
	s.act = act
	s.Load.Phase()
	s.Announce(title, lookAt)
}

// state notes a statement. Once ctx is done there is none: the act was cut short, and
// what it would have shown was not seen.
func (s *Stage) state(ctx context.Context, ok bool, what, format string, args ...any) {
	if ctx.Err() != nil {
		return
	}
	st := Statement{Act: s.act, What: what, OK: ok, Detail: fmt.Sprintf(format, args...)}
	s.mu.Lock()
	s.statements = append(s.statements, st)
	s.mu.Unlock()
	s.State(st)
}

// NoneFails is what is said of the requests of an act. It must hold at any speed.
const NoneFails = "no request fails"

// noFailures states that no request of the act failed.
func (s *Stage) noFailures(ctx context.Context) {
	t := s.Load.Counted()
	s.state(ctx, t.Failed() == 0, NoneFails, "%d requests, %s", t.Requests, failures(t))
}

func failures(t Tally) string {
	if t.Failed() == 0 {
		return "0 failures"
	}
	var list []string
	for why, n := range t.Failures {
		list = append(list, fmt.Sprintf("%d × %s", n, why))
	}
	slices.Sort(list)
	return strings.Join(list, ", ")
}

// hold lets time pass.
func (s *Stage) hold(ctx context.Context, seconds float64) {
	timer := time.NewTimer(time.Duration(seconds * s.Pace * float64(time.Second)))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// until waits, with patience, until something is so, and returns how long that took.
func until(ctx context.Context, is func() bool) (took time.Duration, ok bool) {
	began := time.Now()
	for ctx.Err() == nil {
		if is() {
			return time.Since(began), true
		}
		if time.Since(began) > patience {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	return time.Since(began), false
}
