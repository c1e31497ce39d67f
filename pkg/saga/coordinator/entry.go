package coordinator

import (
	"encoding/json"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/saga"
	"github.com/fairlead-mesh/fairlead/pkg/saga/journal"
)

// entry is a saga in its shard's memory. It belongs to the loop.
type entry struct {
	id    string
	head  journal.Head
	state saga.State
	next  int64 // when it goes on, in Unix nanoseconds; 0: when something happens
	place int   // in the heap of those that wait for their time; -1: it is not there

	progress saga.Progress // where it stands while it is not live
	live     *live         // what is needed to go on; nil: it waits, or has ended
	loading  bool

	queued  bool                       // it is among those to be written
	pending pending                    // what is not in a batch yet
	writing bool                       // it is in the batch under way
	waiting map[chan<- waited]struct{} // told when it has ended or is parked, and that is written
	later   []func()                   // wait for it to be live, or for what is pending to be written
	again   []func()                   // wait for it to be deleted
	waits   []*service                 // for places of these
	offered *service                   // it was called up for a place of this one
}

// goOn does what was put off.
func (e *entry) goOn() {
	later := e.later
	e.later = nil
	for _, f := range later {
		f()
	}
}

// live is what a saga needs to go on.
type live struct {
	saga    *saga.Saga
	results saga.Results
	calls   map[string]*saga.Call // those that were made of results
}

// pending is what a transition brings with it, beside the progress.
type pending struct {
	definition []byte
	results    map[string]json.RawMessage
	filled     map[string][]byte
	verbs      map[int][]byte
	calls      []saga.CallRef // to be made when it is written
	told       []func(error)  // who wait for it to be written
}

// size returns how many keys and bytes are written.
func (p *pending) size() (keys, bytes int) {
	keys, bytes = 1, saga.MaxProgressBytes
	for _, b := range p.filled {
		keys, bytes = keys+1, bytes+len(b)
	}
	for _, b := range p.results {
		keys, bytes = keys+1, bytes+len(b)
	}
	for _, b := range p.verbs {
		keys, bytes = keys+1, bytes+len(b)
	}
	if p.definition != nil {
		keys, bytes = keys+1, bytes+len(p.definition)
	}
	return keys, bytes
}

// What is pending of one saga goes into one batch. Behind so much of it, nothing is added until it is written: the rest of a batch is for the last that was,
// a call of which all is as long as it may be.
const (
	maxPendingKeys  = journal.MaxBatchOps / 2
	maxPendingBytes = journal.MaxBatchBytes / 2
)

// hasRoom reports whether something may be added.
func (p *pending) hasRoom() bool {
	keys, bytes := p.size()
	return keys < maxPendingKeys && bytes < maxPendingBytes
}

// size returns how many keys and bytes are written of an entry.
func (e *entry) size() (keys, bytes int) {
	if e.state == "" { // to be forgotten
		return journal.ForgetOps, 0
	}
	return e.pending.size()
}

// write puts what is pending into a batch, and the progress as it is now.
func (e *entry) write(b *journal.Batch) {
	p := &e.pending
	if p.definition != nil {
		b.Define(e.id, p.definition)
	}
	for step, result := range p.results {
		b.Result(e.id, step, result)
	}
	for name, call := range p.filled {
		b.Call(e.id, name, call)
	}
	for n, verb := range p.verbs {
		b.Verb(e.id, n, verb)
	}
	b.Progress(e.id, e.head, &e.live.saga.Progress)
}

// due is a heap of entries by the time that they go on.
type due []*entry

func (d due) Len() int           { return len(d) }
func (d due) Less(i, j int) bool { return d[i].next < d[j].next }
func (d due) Swap(i, j int) {
	d[i], d[j] = d[j], d[i]
	d[i].place, d[j].place = i, j
}

// Push implements heap.Interface.
func (d *due) Push(x any) {
	e := x.(*entry)
	e.place = len(*d)
	*d = append(*d, e)
}

// Pop implements heap.Interface.
func (d *due) Pop() any {
	e := (*d)[len(*d)-1]
	(*d)[len(*d)-1] = nil
	*d = (*d)[:len(*d)-1]
	e.place = -1
	return e
}

// soon is how far away the next thing may be that a saga stays live for.
const soon = 2 * time.Second
