package proxy

import (
	"fmt"
	"io"
	"math"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/fairlead-mesh/fairlead/pkg/breaker"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/reason"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/table"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/upstream"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/wire"
)

// arrived is a stream of which the next bytes are here, or are not.
type arrived struct {
	upstream.Stream
	here bool
}

func (a arrived) Ready() bool { return a.here }

// narrow is a client that takes so many bytes.
type narrow int

func (n narrow) room() int              { return int(n) }
func (narrow) peer() netip.Addr         { return netip.Addr{} }
func (narrow) isLast() bool             { return false }
func (narrow) discard() bool            { return true }
func (narrow) stopBody(<-chan struct{}) {}
func (narrow) abort()                   {}

func TestStagesSayWhetherTheyWouldWait(t *testing.T) {
	small, large := make([]byte, 100), make([]byte, smallRequest)
	for name, test := range map[string]struct {
		x    *exchange
		at   stage
		want bool
	}{
		"a destination that is to be learnt":      {&exchange{}, atRoute, false},
		"a host without a connection":             {&exchange{}, atDial, false},
		"a request without a body":                {&exchange{whole: true}, atSend, true},
		"a small body":                            {&exchange{whole: true, body: small}, atSend, true},
		"a body that fills the room but the head": {&exchange{whole: true, body: large}, atSend, false},
		"a large head":                            {&exchange{whole: true, request: wire.Head{Path: large}}, atSend, false},
		"a body that is still coming in":          {&exchange{}, atSend, false},
		"a head that is here":                     {&exchange{up: arrived{here: true}}, atHead, true},
		"a head that is not":                      {&exchange{up: arrived{}}, atHead, false},
		"bytes that the client takes":             {&exchange{up: arrived{here: true}, client: narrow(1)}, atBody, true},
		"bytes that it does not":                  {&exchange{up: arrived{here: true}, client: narrow(0)}, atBody, false},
		"bytes that are to come":                  {&exchange{up: arrived{}, client: narrow(1)}, atBody, false},
		"a reply that the client takes":           {&exchange{own: small, client: narrow(100)}, atReply, true},
		"a reply that it does not":                {&exchange{own: small, client: narrow(99)}, atReply, false},
		"a tunnel":                                {&exchange{}, atTunnel, false},
		"the end":                                 {&exchange{}, atEnd, true},
	} {
		if got := test.x.ready(test.at); got != test.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

// taking is a client's side that takes a head.
type taking struct{ sink }

func (taking) WriteHead(*wire.Head) error { return nil }

// ending is a client's side that notes whether a head is said to be all.
type ending struct{ told bool }

func (e *ending) WriteHead(h *wire.Head) error        { e.told = h.Ends; return nil }
func (e *ending) WriteBody([]byte) error              { return nil }
func (e *ending) EndBody(trailers []wire.Field) error { return nil }
func (e *ending) Flush() error                        { return nil }

func TestAResponseThatIsAllHeadIsToldToBe(t *testing.T) {
	for name, test := range map[string]struct {
		passed, web bool // it is passed on, else the proxy's own; to a client of gRPC-Web
		ends        bool // what the host said
		body        string
		want        bool
	}{
		"passed on":                              {passed: true, ends: true, want: true},
		"passed on, and more may come":           {passed: true},
		"passed on, with trailers in its body":   {passed: true, ends: true, web: true},
		"our own":                                {want: true},
		"our own, with a body":                   {body: "why"},
		"our own, with trailers in its body":     {web: true},
		"our own, after one that the host ended": {ends: true, body: "why"},
	} {
		client := &ending{}
		x := &exchange{
			life:   &life{},
			server: NewServer(Config{Clock: func() int64 { return 1 }}),
			entry:  &table.Entry{Inbound: true},
			sink:   client,
			client: narrow(0),
			rpc:    call{web: test.web},
		}
		x.response.Status, x.response.Ends = 200, test.ends
		if test.passed {
			x.answer()
		} else if err := x.writeWhole(&x.response, []byte(test.body)); err != nil {
			t.Error(err)
		}
		if client.told != test.want {
			t.Errorf("%s: %t", name, client.told)
		}
	}
}

func TestNothingIsKeptForASecondAttemptOnceTheResponseHasBegun(t *testing.T) {
	x := &exchange{
		life:   &life{},
		server: NewServer(Config{Clock: func() int64 { return 1 }}),
		entry:  &table.Entry{Inbound: true},
		sink:   taking{},
		client: narrow(0),
		upload: upload{running: true, done: make(chan struct{})},
	}
	x.keep([]byte("a stream's first"))
	if string(x.body) != "a stream's first" || x.lost {
		t.Fatalf("kept %q, lost %t", x.body, x.lost)
	}
	x.response.Status = 200
	if got := x.answer(); got != atBody {
		t.Fatalf("stage %d", got)
	}
	x.keep([]byte("and its second"))
	if x.body != nil || !x.lost {
		t.Errorf("kept %q, lost %t", x.body, x.lost)
	}
	x.life.begin(2)
	if x.life.final.Load() {
		t.Error("the next exchange keeps nothing either")
	}
}

func TestAQueueOfDialsThatIsFullSaysNothingAboutTheHost(t *testing.T) {
	x := &exchange{life: &life{}, entry: &table.Entry{}}
	if got, want := x.unconnected(upstream.ErrBusy), (failure{why: reason.TooManyConnecting, undelivered: true}); got != want {
		t.Errorf("%+v", got)
	}
	if got := x.outcome(reason.TooManyConnecting, 0); got != breaker.Ignored {
		t.Errorf("the breaker is told %d", got)
	}
}

func TestWhatThisSideLacksToConnectSaysNothingAboutTheHost(t *testing.T) {
	none := fmt.Errorf("dial: %w", upstream.ErrNoSocket)
	x := &exchange{life: &life{}, entry: &table.Entry{}}
	if got, want := x.unconnected(none), (failure{why: reason.NoSocket, undelivered: true}); got != want {
		t.Errorf("%+v", got)
	}
	if got := x.outcome(reason.NoSocket, 0); got != breaker.Ignored {
		t.Errorf("the breaker is told %d", got)
	}
	x.entry.Inbound = true // the peer is told that it may go elsewhere, and people why
	if got, want := x.unconnected(none), (failure{why: reason.NotDelivered, undelivered: true}); got != want {
		t.Errorf("inbound: %+v", got)
	}
	if !strings.HasSuffix(x.detail, reason.NoSocket.Text()) {
		t.Errorf("inbound: %s", x.detail)
	}
}

// refusing is a stream that writes no head.
type refusing struct {
	upstream.Stream
	released *bool
}

func (refusing) SetDeadline(int64) {}
func (refusing) Written() int64    { return 0 }
func (refusing) WriteHead(*wire.Head) error {
	return &wire.Error{Status: 500, Text: "it would be read as another"}
}
func (r refusing) Release(reusable bool, _ int64) { *r.released = !reusable }

func TestARequestThatCannotBeWrittenIsRefusedAtOnce(t *testing.T) {
	var released bool
	x := &exchange{
		life:   &life{},
		server: NewServer(Config{Clock: func() int64 { return 1 }}),
		up:     refusing{released: &released},
		entry:  &table.Entry{},
		whole:  true,
	}
	if got := x.send(); got != atReply || x.why != reason.BadRequest {
		t.Errorf("stage %d, %s", got, x.why.Code())
	}
	if !released {
		t.Error("the stream was not given back to be closed")
	}
	if got := x.outcome(x.why, 0); got != breaker.Ignored {
		t.Errorf("the breaker is told %d", got)
	}
}

// departed is a client's side that is not there any more.
type departed struct{ sink }

func (departed) WriteHead(*wire.Head) error { return io.ErrClosedPipe }

func TestAClientThatLeavesBeforeItsTunnelBeginsSaysNothingAboutTheHost(t *testing.T) {
	var released bool
	x := &exchange{
		life:   &life{},
		server: NewServer(Config{Clock: func() int64 { return 1 }}),
		sink:   departed{},
		up:     refusing{released: &released},
		entry:  &table.Entry{},
		whole:  true,
	}
	x.response.Status = 101
	if x.answerTunnel(); x.why != reason.ClientGone {
		t.Errorf("%s", x.why.Code())
	}
	if !released {
		t.Error("the stream was not given back to be closed")
	}
	if got := x.outcome(x.why, 0); got != breaker.Ignored {
		t.Errorf("the breaker is told %d", got)
	}
}

// written is a client of whose answer the head is kept.
type written struct {
	sink
	head wire.Head
}

func (w *written) WriteHead(h *wire.Head) error { w.head = *h; return nil }

func over() chan struct{} {
	done := make(chan struct{})
	close(done)
	return done
}

// Whether a next request can be found depends on what becomes of this one's body.
func TestHeadOfAnAnswerSaysWhetherTheConnectionGoesOn(t *testing.T) {
	under, whole, broken := make(chan struct{}), over(), over()
	for name, test := range map[string]struct {
		upload  upload
		expects bool
		drains  bool
		goesOn  bool
	}{
		"no body that had to come":                         {goesOn: true},
		"a body that came whole":                           {upload: upload{running: true, done: whole, ended: true}, goesOn: true},
		"one that came whole when asked for":               {upload: upload{running: true, done: whole, ended: true}, expects: true, goesOn: true},
		"a body on its way":                                {upload: upload{running: true, done: under}, goesOn: true},
		"one that may not come, since nobody asked for it": {upload: upload{running: true, done: under}, expects: true},
		"a body that the instance did not take":            {upload: upload{running: true, done: broken}},
		"a drain":                                          {drains: true},
	} {
		client := &written{}
		server := NewServer(Config{Clock: func() int64 { return 1 }})
		x := &exchange{
			life:      &life{},
			server:    server,
			client:    &conn{server: server, x: &exchange{}, oldAt: math.MaxInt64},
			entry:     &table.Entry{Inbound: true},
			sink:      client,
			upload:    test.upload,
			keepAlive: true,
		}
		x.request.ExpectContinue, x.response.Status = test.expects, 200
		x.server.draining.Store(test.drains)
		if got := x.answer(); got != atBody || client.head.Close == test.goesOn || x.keepAlive != test.goesOn {
			t.Errorf("%s: stage %d, close %t, keepAlive %t", name, got, client.head.Close, x.keepAlive)
		}
	}
}

// untaking is a client that takes nothing of an answer.
type untaking struct {
	sink
	err error
}

func (u untaking) WriteHead(*wire.Head) error { return u.err }
func (u untaking) EndBody([]wire.Field) error { return u.err }

// finished is a stream whose body is over.
type finished struct{ upstream.Stream }

func (finished) Ready() bool            { return true }
func (finished) Next() ([]byte, error)  { return nil, io.EOF }
func (finished) Trailers() []wire.Field { return nil }
func (finished) Release(bool, int64)    {}

// A client that closes its connection takes with it all the answers that are under way there.
func TestAClientThatIsGoneSaysNothingAboutTheHost(t *testing.T) {
	unsendable := &wire.Error{Status: 500, Text: "it would be read as another"}
	for name, test := range map[string]struct {
		err        error
		head, body reason.Reason
		outcome    breaker.Outcome
	}{
		"gone":                      {net.ErrClosed, reason.ClientGone, reason.ClientGone, breaker.Ignored},
		"an answer that is no such": {unsendable, reason.UpstreamProtocol, reason.ResponseBroken, breaker.Failure},
	} {
		for at, want := range map[stage]reason.Reason{atHead: test.head, atBody: test.body} {
			x := &exchange{
				life:   &life{},
				server: NewServer(Config{Clock: func() int64 { return 1 }}),
				entry:  &table.Entry{},
				sink:   untaking{err: test.err},
				client: narrow(1),
				up:     finished{},
				whole:  true,
			}
			x.response.Status = 200
			if at == atHead {
				x.entry.Inbound = true // so that nobody asks whether the host is a sidecar
				x.answer()
			} else {
				x.answered, x.status = true, 200
				x.passBody()
			}
			if x.why != want {
				t.Errorf("%s, stage %d: %s", name, at, x.why.Code())
			}
			if got := x.outcome(x.why, 0); got != test.outcome {
				t.Errorf("%s, stage %d: the breaker is told %d", name, at, got)
			}
		}
	}
}

func TestOnlyWhatIsHereAndSafeIsSentAgain(t *testing.T) {
	undelivered, reset := failure{why: reason.ConnectFailed, undelivered: true}, failure{why: reason.UpstreamReset}
	for name, test := range map[string]struct {
		change func(x *exchange)
		failed failure
		want   bool
	}{
		"not delivered":                            {func(*exchange) {}, undelivered, true},
		"reset":                                    {func(*exchange) {}, reset, true},
		"no answer in time":                        {func(*exchange) {}, failure{why: reason.RequestTimeout}, false},
		"a second time":                            {func(x *exchange) { x.retries = 1 }, undelivered, false},
		"a body that was not kept":                 {func(x *exchange) { x.lost = true }, undelivered, false},
		"a body that the client broke off":         {func(x *exchange) { x.upload = upload{running: true, done: over(), client: true} }, undelivered, false},
		"a client that left":                       {func(x *exchange) { x.life.gone.Store(true) }, undelivered, false},
		"not delivered, and not safe":              {func(x *exchange) { x.request.Method = []byte("POST") }, undelivered, true},
		"reset, and not safe":                      {func(x *exchange) { x.request.Method = []byte("POST") }, reset, false},
		"reset after an interim response":          {func(x *exchange) { x.interim = true }, reset, false},
		"reset, which the caller's sidecar mends":  {func(x *exchange) { x.fromPeer = true }, reset, false},
		"not delivered, which it mends if need be": {func(x *exchange) { x.fromPeer = true }, undelivered, true},
	} {
		x := &exchange{life: &life{}}
		x.request.Method = []byte("PUT")
		test.change(x)
		if got := x.mayRetry(test.failed); got != test.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

// stirred is a stream that counts how often it is stirred.
type stirred struct {
	upstream.Stream
	times *int
}

func (s stirred) Stir() { *s.times++ }

func TestALongWaitForAnInstanceIsStirredOnce(t *testing.T) {
	const long = int64(2 * watchEvery)
	var l life
	times := 0
	l.using(stirred{times: &times})
	for _, step := range []struct {
		phase phase
		since int64
		now   int64
		want  int
	}{
		{silent, 1, 2, 0}, // most are over by then
		{silent, 1, long, 1},
		{silent, 1, 2 * long, 1},
		{working, 2 * long, 3 * long, 1},
		{silent, 3 * long, 4 * long, 2},
	} {
		l.enter(step.phase, step.since)
		l.expire(step.now)
		if times != step.want {
			t.Errorf("%+v: %d times", step, times)
		}
	}
	l.using(nil)
	l.enter(silent, 5*long)
	l.expire(6 * long)
	if times != 2 {
		t.Error("it is stirred though it belongs to nobody")
	}
}
