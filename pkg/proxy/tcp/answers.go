package tcp

import (
	"net/netip"
	"sync"
	"time"
)

// answer is what connections to a destination have turned out to be.
type answer uint8

const (
	unanswered  answer = iota
	serverFirst        // its host spoke before the client
	notOpaque          // the client did, and it was HTTP or TLS
)

const (
	// maxAnswers bounds the destinations that are remembered: their addresses may come from
	// clients, in PROXY protocol headers.
	maxAnswers = 1024
	// answerTime is how long an answer is remembered, in nanoseconds.
	answerTime = int64(10 * time.Minute)
)

// answers remembers by destination what connections were. An answer is used to do without
// something that would be for nothing, never to decide what a connection is. It is safe for
// concurrent use.
type answers struct {
	mu    sync.Mutex
	known map[netip.AddrPort]remembered // guarded by mu
}

type remembered struct {
	answer answer
	until  int64
}

func (a *answers) get(at netip.AddrPort, now int64) answer {
	a.mu.Lock()
	defer a.mu.Unlock()
	if r := a.known[at]; now < r.until {
		return r.answer
	}
	return unanswered
}

// learn replaces what was known. Where too many are known, any one is forgotten.
func (a *answers) learn(at netip.AddrPort, is answer, now int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if is == unanswered {
		delete(a.known, at)
		return
	}
	if a.known == nil {
		a.known = map[netip.AddrPort]remembered{}
	}
	if _, there := a.known[at]; !there && len(a.known) >= maxAnswers {
		for other := range a.known {
			delete(a.known, other)
			break
		}
	}
	a.known[at] = remembered{is, now + answerTime}
}
