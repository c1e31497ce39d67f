package coordinator

import "slices"

// service is one that is called by sagas of a shard. It has so many places for calls at once; what finds none waits in turn. While any wait, each place is
// taken, or offered to one that was called up.
type service struct {
	name          string
	calls, offers int
	waiting       []*entry
}

// takePlace takes a place of a service for a call of a saga, or has it wait for one.
func (o *owner) takePlace(e *entry, name string) bool {
	if o.stopping {
		return false
	}
	s := o.services[name]
	if s == nil {
		s = &service{name: name}
		o.services[name] = s
	}
	free := o.config.MaxServiceCalls - s.calls
	if e.offered == s && free > 0 || free > s.offers && len(s.waiting) == 0 {
		s.calls++
		return true
	}
	if !slices.Contains(e.waits, s) {
		e.waits = append(e.waits, s)
		s.waiting = append(s.waiting, e)
	}
	return false
}

// leavePlace gives a place back, and calls up who waits for it.
func (o *owner) leavePlace(name string) {
	s := o.services[name]
	s.calls--
	o.callUp(s)
}

// callUp offers a place of a service, if one is free, to the first saga that waits for it. A service that nobody calls is forgotten.
func (o *owner) callUp(s *service) {
	for s.calls+s.offers < o.config.MaxServiceCalls && len(s.waiting) > 0 {
		e := s.waiting[0]
		s.waiting[0] = nil
		s.waiting = s.waiting[1:]
		e.waits = slices.DeleteFunc(e.waits, func(w *service) bool { return w == s })
		if e.offered != nil || e.state == "" || e.state.Ended() {
			continue // it goes on anyway, or not any more
		}
		e.offered = s
		s.offers++
		e.next = o.now()
		o.schedule(e)
		return
	}
	if s.calls == 0 && s.offers == 0 {
		delete(o.services, s.name)
	}
}

// called ends the offer by which a saga was called up that has gone on. If it did not want the place, the next is called up for it.
func (o *owner) called(e *entry) {
	if s := e.offered; s != nil {
		e.offered = nil
		s.offers--
		o.callUp(s)
	}
}
