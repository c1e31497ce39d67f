package discovery_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/store/memstore"
)

// While a control plane is frozen, its clients give up their connections. That is read
// when it goes on, and their sidecars are seconds away from the next attempt.
func TestStreamsThatEndBecauseTheControlPlaneFrozeHaveTheGraceOfAnOrphan(t *testing.T) {
	for _, c := range []struct {
		name   string
		lose   func(p *plane)
		stays  time.Duration // after the thaw
		asLost bool
	}{
		{"before the freeze was noticed", func(p *plane) {
			p.mustAttach(instance("a1")).Broke()
			p.registry.Freeze(20 * time.Second)
		}, 10 * time.Second, true},
		{"just after", func(p *plane) {
			a := p.mustAttach(instance("a1"))
			p.registry.Freeze(20 * time.Second)
			a.Broke()
		}, 10 * time.Second, true},
		{"within the first grace", func(p *plane) {
			p.mustAttach(instance("a1")).Broke()
			time.Sleep(500 * time.Millisecond)
			p.registry.Freeze(20 * time.Second)
		}, 10 * time.Second, true},
		{"twice", func(p *plane) {
			a := p.mustAttach(instance("a1"))
			p.registry.Freeze(20 * time.Second)
			a.Broke()
			time.Sleep(6 * time.Second)
			p.registry.Freeze(20 * time.Second)
		}, 10 * time.Second, true},
		{"long after", func(p *plane) {
			a := p.mustAttach(instance("a1"))
			p.registry.Freeze(20 * time.Second)
			time.Sleep(6 * time.Second)
			a.Broke()
		}, time.Second, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, s *memstore.Store) {
				p := settled(newPlane(t, s, "r1").run())
				c.lose(p)
				time.Sleep(c.stays - 1)
				synctest.Wait()
				p.wantIDs("within the grace", "[a1]")
				time.Sleep(time.Nanosecond)
				synctest.Wait()
				p.wantIDs("after it", "[]")
				if lost := len(p.lost()) > 0; lost != c.asLost {
					t.Errorf("lost: %v", p.lost())
				}
			})
		})
	}
}

func TestAnInstanceThatComesBackAfterTheControlPlaneFrozeStays(t *testing.T) {
	inBubble(t, func(t *testing.T, s *memstore.Store) {
		p := settled(newPlane(t, s, "r1").run())
		a := p.mustAttach(instance("a1"))
		p.registry.Freeze(20 * time.Second)
		a.Broke()
		time.Sleep(9 * time.Second)
		p.mustAttach(instance("a1"))
		time.Sleep(time.Minute)
		synctest.Wait()
		p.wantIDs("a minute later", "[a1]")
	})
}
