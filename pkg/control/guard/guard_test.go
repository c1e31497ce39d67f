package guard_test

import (
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/control/guard"
	"github.com/fairlead-mesh/fairlead/pkg/discovery"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

func orders() mesh.ServiceName { return mesh.ServiceName{Namespace: "default", Name: "orders"} }

// fleet is a service whose instances, i0 and on, come and go.
type fleet struct {
	*guard.Guard
	now   time.Time
	alive map[int]bool
}

func newFleet(instances int) *fleet {
	f := &fleet{guard.New(slog.New(slog.DiscardHandler)), time.Unix(1000, 0), map[int]bool{}}
	for i := range instances {
		f.alive[i] = true
	}
	return f
}

func record(i int) *discovery.Record {
	return &discovery.Record{Key: discovery.Key{Service: orders(), ID: fmt.Sprintf("i%d", i)}}
}

// lose loses instances, from one number up to another, and returns how many are held.
func (f *fleet) lose(from, to int) int {
	var lost []*discovery.Record
	for i := from; i < to; i++ {
		delete(f.alive, i)
		lost = append(lost, record(i))
	}
	f.Lose(f.now, lost)
	return f.held()
}

func (f *fleet) comeBack(from, to int) int {
	for i := from; i < to; i++ {
		f.alive[i] = true
	}
	return f.held()
}

func (f *fleet) held() int {
	s := discovery.Service{Name: orders()}
	for i := range 100 {
		if f.alive[i] {
			s.Instances = append(s.Instances, record(i))
		}
	}
	return len(f.Hold(f.now, s))
}

func (f *fleet) after(d time.Duration) *fleet {
	f.now = f.now.Add(d)
	return f
}

func TestMoreThanHalfOfFiveOrMoreAreHeld(t *testing.T) {
	for _, c := range []struct{ instances, lost, want int }{
		{4, 4, 0}, {4, 3, 0}, {1, 1, 0},
		{5, 2, 0}, {5, 3, 3}, {5, 5, 5},
		{6, 3, 0}, {6, 4, 4},
		{100, 50, 0}, {100, 51, 51}, {100, 100, 100},
	} {
		if got := newFleet(c.instances).lose(0, c.lost); got != c.want {
			t.Errorf("of %d, %d were lost: %d are held, want %d", c.instances, c.lost, got, c.want)
		}
	}
}

func TestOnlyLossesOfTheLastThirtySecondsCount(t *testing.T) {
	f := newFleet(10)
	if n := f.lose(0, 4); n != 0 {
		t.Fatalf("%d are held of the first four", n)
	}
	if n := f.after(guard.Window-1).lose(4, 6); n != 6 {
		t.Errorf("within the window: %d are held, want all six", n)
	}
	f = newFleet(10)
	f.lose(0, 4)
	if n := f.after(guard.Window).lose(4, 6); n != 0 {
		t.Errorf("after the window: %d are held, want none: two of the remaining six are not most", n)
	}
}

func TestHoldEndsAfterTenMinutes(t *testing.T) {
	f := newFleet(10)
	f.lose(0, 6)
	if n := f.after(guard.MaxHold - 1).held(); n != 6 {
		t.Errorf("just before: %d are held, want 6", n)
	}
	if n := f.after(1).held(); n != 0 {
		t.Errorf("after it: %d are held, want none", n)
	}
	if due, next := f.Due(f.now); due != nil || !next.IsZero() {
		t.Errorf("due %v, next %v: something is remembered", due, next)
	}
}

func TestHoldEndsWhenHalfOfTheServiceIsThere(t *testing.T) {
	f := newFleet(10)
	f.lose(0, 8)
	if n := f.after(time.Minute).comeBack(0, 2); n != 6 {
		t.Errorf("two are back: %d are held, want 6", n)
	}
	if n := f.comeBack(2, 3); n != 0 {
		t.Errorf("half are back: %d are held, want none", n)
	}
	if n := f.comeBack(3, 4); n != 0 {
		t.Errorf("afterwards: %d are held, want none", n)
	}
}

func TestOneThatIsLostWhileOthersAreHeldIsHeldToo(t *testing.T) {
	f := newFleet(6)
	f.lose(0, 4)
	if n := f.after(5*time.Minute).lose(4, 5); n != 5 {
		t.Errorf("%d are held, want 5", n)
	}
	if n := f.after(5 * time.Minute).held(); n != 0 {
		t.Errorf("%d are held when only that one may be, and one is there: half are not most", n)
	}
}

func TestReleaseLetsGo(t *testing.T) {
	f := newFleet(6)
	f.lose(0, 5)
	if held := f.Held(orders()); len(held) != 5 || f.Count() != 5 || !held[0].Until().Equal(f.now.Add(guard.MaxHold)) {
		t.Fatalf("held: %+v, counted %d", held, f.Count())
	}
	if n := f.Release(orders(), "i9"); n != 0 {
		t.Errorf("released %d of a name that is not held", n)
	}
	if n := f.Release(orders(), "i0"); n != 1 || f.held() != 4 {
		t.Errorf("released %d, held %d; want 1 and 4", n, f.held())
	}
	if n := f.Release(orders(), ""); n != 4 || f.held() != 0 || f.Count() != 0 || f.Held(orders()) != nil {
		t.Errorf("released %d, held %d; want 4 and none", n, f.held())
	}
	if n := f.Release(orders(), ""); n != 0 {
		t.Errorf("released %d again", n)
	}
}

func TestDueTellsWhenToLookAgain(t *testing.T) {
	f := newFleet(10)
	if due, next := f.Due(f.now); due != nil || !next.IsZero() {
		t.Errorf("of nothing: due %v, next %v", due, next)
	}
	f.lose(0, 2)
	if due, next := f.Due(f.now); due != nil || !next.Equal(f.now.Add(guard.Window)) {
		t.Errorf("of losses that are not held: due %v, next %v", due, next)
	}
	f.lose(2, 8)
	if due, next := f.Due(f.now); due != nil || !next.Equal(f.now.Add(guard.MaxHold)) {
		t.Errorf("of losses that are held: due %v, next %v", due, next)
	}
	if due, _ := f.after(guard.MaxHold).Due(f.now); len(due) != 1 {
		t.Errorf("at the end: due %v", due)
	}
	f.Forget(orders())
	if due, next := f.Due(f.now); due != nil || !next.IsZero() {
		t.Errorf("of a service that is forgotten: due %v, next %v", due, next)
	}
}

// Whoever registers instances and lets them die, again and again, is bounded.
func TestNoMoreIsRememberedThanAServiceMayHave(t *testing.T) {
	g := guard.New(slog.New(slog.DiscardHandler))
	now := time.Unix(1000, 0)
	for i := range discovery.MaxInstancesPerService + 10 {
		g.Lose(now.Add(time.Duration(i)), []*discovery.Record{record(i)})
	}
	held := g.Hold(now, discovery.Service{Name: orders()})
	if len(held) != discovery.MaxInstancesPerService {
		t.Fatalf("%d are remembered", len(held))
	}
	if first := g.Held(orders())[0].Record.Key.ID; first != "i10" {
		t.Errorf("the oldest is %s, want i10", first)
	}
}
