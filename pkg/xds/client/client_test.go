package client_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/fairlead-mesh/fairlead/pkg/xds/client"
	"github.com/fairlead-mesh/fairlead/pkg/xds/codec"
)

// server is the other end of the client's connection: the test plays it.
type server struct {
	grpc.ClientConnInterface
	streams chan *stream

	mu     sync.Mutex
	refuse error       // guarded by mu; to open streams with
	header error       // guarded by mu; what streams fail with that were opened
	opened []time.Time // guarded by mu
}

// refuseWith sets the error to open streams with, and returns when streams were asked
// for since the last time.
func (s *server) refuseWith(err error) []time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	opened := s.opened
	s.refuse, s.opened = err, nil
	return opened
}

type stream struct {
	grpc.ClientStream
	ctx       context.Context
	requests  chan *discovery.DeltaDiscoveryRequest
	responses chan *discovery.DeltaDiscoveryResponse
	ended     chan struct{}
	header    error
}

func (s *server) NewStream(ctx context.Context, _ *grpc.StreamDesc, _ string, _ ...grpc.CallOption) (grpc.ClientStream, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opened = append(s.opened, time.Now())
	if s.refuse != nil {
		return nil, s.refuse
	}
	st := &stream{
		ctx:       ctx,
		requests:  make(chan *discovery.DeltaDiscoveryRequest, 100),
		responses: make(chan *discovery.DeltaDiscoveryResponse),
		ended:     make(chan struct{}),
		header:    s.header,
	}
	s.streams <- st
	return st, nil
}

func (s *stream) Header() (metadata.MD, error) { return nil, s.header }
func (s *stream) CloseSend() error             { return nil }

func (s *stream) SendMsg(m any) error {
	s.requests <- proto.CloneOf(m.(*discovery.DeltaDiscoveryRequest))
	return nil
}

func (s *stream) RecvMsg(m any) error {
	select {
	case r := <-s.responses:
		proto.Merge(m.(proto.Message), r)
		return nil
	case <-s.ended:
		return io.EOF
	case <-s.ctx.Done():
		return s.ctx.Err()
	}
}

// rig runs a client in a bubble.
type rig struct {
	*testing.T
	server  *server
	client  *client.Client
	updates []client.Update
	refuses []client.Rejection // what the next Apply returns
	during  func()             // called by Apply; nil: nothing is
}

func bubble(t *testing.T, f func(r *rig)) {
	synctest.Test(t, func(t *testing.T) {
		r := &rig{T: t, server: &server{streams: make(chan *stream, 100)}}
		r.client = client.New(client.Config{
			Node: &core.Node{Id: "n1"},
			Conn: r.server,
			Apply: func(u client.Update) []client.Rejection {
				r.updates = append(r.updates, u)
				if r.during != nil {
					r.during()
				}
				return r.refuses
			},
			Log: slog.New(slog.DiscardHandler),
		})
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- r.client.Run(ctx) }()
		defer func() {
			stop()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}()
		f(r)
	})
}

// next returns the stream that the client opens.
func (r *rig) next() *stream {
	r.Helper()
	synctest.Wait()
	select {
	case s := <-r.server.streams:
		return s
	case <-time.After(time.Minute):
		r.Fatal("no stream was opened")
		return nil
	}
}

// request returns the next request for a type; one for another that is empty, as is
// the first of a client that wants nothing, is passed over.
func (r *rig) request(s *stream, typeURL string) *discovery.DeltaDiscoveryRequest {
	r.Helper()
	for {
		select {
		case q := <-s.requests:
			if q.GetTypeUrl() == typeURL {
				return q
			}
		case <-time.After(time.Minute):
			r.Fatal("no request came")
		}
	}
}

// holding returns the client's stream once it holds a cluster and said so.
func (r *rig) holding(name string) *stream {
	r.Helper()
	r.client.Subscribe(codec.ClusterURL, name)
	s := r.next()
	r.request(s, codec.ClusterURL)
	respond(s, "1", name)
	r.request(s, codec.ClusterURL)
	return s
}

func respond(s *stream, nonce string, names ...string) {
	resp := &discovery.DeltaDiscoveryResponse{TypeUrl: codec.ClusterURL, Nonce: nonce}
	for _, name := range names {
		resp.Resources = append(resp.Resources, &discovery.Resource{Name: name, Version: "v-" + name})
	}
	s.responses <- resp
}

func TestNamesAreSubscribedAndAcknowledgedOnceTheyAreInForce(t *testing.T) {
	bubble(t, func(r *rig) {
		r.client.Subscribe(codec.ClusterURL, "b", "a")
		s := r.next()
		q := r.request(s, codec.ClusterURL)
		if !slices.Equal(q.GetResourceNamesSubscribe(), []string{"a", "b"}) || q.GetNode().GetId() != "n1" || len(q.GetInitialResourceVersions()) != 0 {
			r.Fatalf("%v", q)
		}
		respond(s, "1", "a", "stranger")
		ack := r.request(s, codec.ClusterURL)
		if ack.GetResponseNonce() != "1" || ack.GetErrorDetail() != nil {
			r.Errorf("%v", ack)
		}
		if len(r.updates) != 1 || len(r.updates[0].Resources) != 1 || r.updates[0].Resources[0].Name != "a" {
			r.Errorf("applied before the acknowledgement: %v", r.updates)
		}
		r.client.Subscribe(codec.ClusterURL, "c")
		if q := r.request(s, codec.ClusterURL); !slices.Equal(q.GetResourceNamesSubscribe(), []string{"c"}) || q.GetNode() != nil {
			r.Errorf("%v", q)
		}
		r.client.Unsubscribe(codec.ClusterURL, "b")
		if q := r.request(s, codec.ClusterURL); !slices.Equal(q.GetResourceNamesUnsubscribe(), []string{"b"}) {
			r.Errorf("%v", q)
		}
		r.client.Unsubscribe(codec.ClusterURL, "never wanted")
		r.client.Subscribe(codec.ClusterURL, "d")
		if q := r.request(s, codec.ClusterURL); !slices.Equal(q.GetResourceNamesSubscribe(), []string{"d"}) || len(q.GetResourceNamesUnsubscribe()) > 0 {
			r.Errorf("not what changed and nothing else: %v", q)
		}
	})
}

func TestRefusedResourcesAreNamedAndNotHeld(t *testing.T) {
	bubble(t, func(r *rig) {
		r.client.Subscribe(codec.ClusterURL, "good", "bad")
		s := r.next()
		r.request(s, codec.ClusterURL)
		r.refuses = []client.Rejection{{Name: "bad", Reason: "no \xff such thing"}}
		respond(s, "1", "good", "bad")
		nack := r.request(s, codec.ClusterURL)
		var detail errdetails.BadRequest
		if nack.GetResponseNonce() != "1" || len(nack.GetErrorDetail().GetDetails()) != 1 ||
			nack.GetErrorDetail().GetDetails()[0].UnmarshalTo(&detail) != nil ||
			len(detail.GetFieldViolations()) != 1 || detail.GetFieldViolations()[0].GetField() != "bad" {
			r.Fatalf("%v", nack)
		}
		if st := r.client.Status(); st.Rejected != 1 || st.Responses != 1 {
			r.Errorf("%+v", st)
		}
		// The next stream is told what is in force, and is asked for the rest again.
		close(s.ended)
		q := r.request(r.next(), codec.ClusterURL)
		if len(q.GetInitialResourceVersions()) != 1 || q.GetInitialResourceVersions()["good"] != "v-good" {
			r.Errorf("held: %v", q.GetInitialResourceVersions())
		}
		if !slices.Equal(q.GetResourceNamesSubscribe(), []string{"bad", "good"}) || q.GetNode().GetId() != "n1" {
			r.Errorf("%v", q)
		}
	})
}

func TestRemovedResourceIsNotHeld(t *testing.T) {
	bubble(t, func(r *rig) {
		s := r.holding("a")
		s.responses <- &discovery.DeltaDiscoveryResponse{TypeUrl: codec.ClusterURL, Nonce: "2", RemovedResources: []string{"a", "stranger"}}
		r.request(s, codec.ClusterURL)
		if got := r.updates[1].Removed; !slices.Equal(got, []string{"a"}) {
			r.Errorf("removed: %q", got)
		}
		close(s.ended)
		if q := r.request(r.next(), codec.ClusterURL); len(q.GetInitialResourceVersions()) != 0 {
			r.Errorf("held: %v", q.GetInitialResourceVersions())
		}
	})
}

// The server believes that the client holds what it sent: of a name that was given up
// for a moment it must hear that, or it would not send it again.
func TestNameThatIsWantedAgainAtOnceIsAskedForAgain(t *testing.T) {
	bubble(t, func(r *rig) {
		s := r.holding("a")
		r.client.Unsubscribe(codec.ClusterURL, "a")
		r.client.Subscribe(codec.ClusterURL, "a")
		if q := r.request(s, codec.ClusterURL); !slices.Equal(q.GetResourceNamesUnsubscribe(), []string{"a"}) || len(q.GetResourceNamesSubscribe()) != 0 {
			r.Errorf("first: %v", q)
		}
		if q := r.request(s, codec.ClusterURL); !slices.Equal(q.GetResourceNamesSubscribe(), []string{"a"}) {
			r.Errorf("then: %v", q)
		}
	})
}

func TestWhoWantsNothingSaysAllTheSameWhoItIs(t *testing.T) {
	bubble(t, func(r *rig) {
		q := r.request(r.next(), codec.EndpointsURL)
		if q.GetNode().GetId() != "n1" || len(q.GetResourceNamesSubscribe()) > 0 {
			t.Errorf("first request %v", q)
		}
	})
}

func TestNewStreamIsNotToldWhatTheLastOneDidNotHear(t *testing.T) {
	bubble(t, func(r *rig) {
		s := r.holding("a")
		close(s.ended)
		synctest.Wait()
		r.client.Unsubscribe(codec.ClusterURL, "a")
		r.client.Subscribe(codec.ClusterURL, "b")
		q := r.request(r.next(), codec.ClusterURL)
		if !slices.Equal(q.GetResourceNamesSubscribe(), []string{"b"}) || len(q.GetResourceNamesUnsubscribe())+len(q.GetInitialResourceVersions()) > 0 {
			t.Errorf("request %v", q)
		}
	})
}

func TestNameThatIsGivenUpWhileItComesIsNotHeld(t *testing.T) {
	bubble(t, func(r *rig) {
		r.during = func() { r.client.Unsubscribe(codec.ClusterURL, "a") }
		s := r.holding("a")
		r.client.Subscribe(codec.ClusterURL, "a")
		synctest.Wait()
		close(s.ended)
		q := r.request(r.next(), codec.ClusterURL)
		if !slices.Equal(q.GetResourceNamesSubscribe(), []string{"a"}) || len(q.GetInitialResourceVersions()) > 0 {
			t.Errorf("it is said to be held, and so would not be sent: %v", q)
		}
	})
}

func TestTypesThatNobodyAskedForAreNotKept(t *testing.T) {
	bubble(t, func(r *rig) {
		s := r.holding("a")
		for i := range 100 {
			url := fmt.Sprint("type.googleapis.com/t", i)
			s.responses <- &discovery.DeltaDiscoveryResponse{TypeUrl: url, Nonce: "n", Resources: []*discovery.Resource{{Name: "x", Version: "1"}}, RemovedResources: []string{"y"}}
			if q := r.request(s, url); q.GetResponseNonce() != "n" || q.GetErrorDetail() != nil {
				t.Errorf("answer %v", q)
			}
		}
		if n := r.client.Types(); n != 1 {
			t.Errorf("something is kept of %d types", n)
		}
	})
}

func TestLostServerIsTriedAgainEverMoreSeldomWithChance(t *testing.T) {
	bubble(t, func(r *rig) {
		s := r.next()
		synctest.Wait()
		if st := r.client.Status(); !st.Connected {
			r.Fatalf("%+v", st)
		}
		lostAt := time.Now()
		r.server.refuseWith(errors.New("nobody there"))
		close(s.ended)
		time.Sleep(5 * time.Minute)
		st := r.client.Status()
		if st.Connected || st.LastError != "nobody there" || !st.Since.Equal(lostAt) {
			r.Errorf("%+v, lost at %v", st, lostAt)
		}
		tries := r.server.refuseWith(nil)
		if len(tries) < 100 || len(tries) > 1000 {
			r.Errorf("%d tries in five minutes", len(tries))
		}
		different := map[time.Duration]bool{}
		for i := 20; i+1 < len(tries); i++ {
			wait := tries[i+1].Sub(tries[i])
			if wait > 3*time.Second {
				r.Fatalf("it waited %v", wait)
			}
			different[wait] = true
		}
		if len(different) < 50 {
			r.Errorf("only %d different waits", len(different))
		}
		r.next()
		synctest.Wait()
		if st := r.client.Status(); !st.Connected {
			r.Errorf("%+v", st)
		}
	})
}

func TestServerThatWasNeverReachedIsGoneSinceTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		c := client.New(client.Config{Conn: &server{refuse: errors.New("no")}, Log: slog.New(slog.DiscardHandler)})
		ctx, stop := context.WithTimeout(t.Context(), time.Minute)
		defer stop()
		_ = c.Run(ctx)
		if st := c.Status(); st.Connected || !st.Since.Equal(began) || st.LastError != "no" {
			t.Errorf("%+v", st)
		}
	})
}

// follow runs a client until the test's bubble ends.
func follow(t *testing.T, c client.Config) *client.Client {
	t.Helper()
	x := client.New(c)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = x.Run(ctx) }()
	t.Cleanup(func() { stop(); <-ended })
	return x
}

func TestBackOffIsAsConfiguredAndBeginsAnewAfterAStreamThatLasted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{streams: make(chan *stream, 100), refuse: errors.New("nobody there")}
		follow(t, client.Config{Conn: s, MinBackoff: time.Second, MaxBackoff: time.Minute, Log: slog.New(slog.DiscardHandler)})
		time.Sleep(4 * time.Hour)
		tries, longest := s.refuseWith(nil), time.Duration(0)
		for i := range len(tries) - 1 {
			longest = max(longest, tries[i+1].Sub(tries[i]))
		}
		if longest < 30*time.Second || longest > time.Minute {
			t.Errorf("it waited up to %v", longest)
		}
		for range 20 { // chance alone would have it wait less than a second twenty times
			stream := <-s.streams
			time.Sleep(2 * time.Minute)
			lost := time.Now()
			s.refuseWith(nil)
			close(stream.ended)
			time.Sleep(2 * time.Minute)
			if tries := s.refuseWith(nil); len(tries) != 1 || tries[0].Sub(lost) > time.Second {
				t.Fatalf("lost at %v, tried again at %v", lost, tries)
			}
		}
	})
}

func TestConnectedIsWhoseStreamTheServerHasTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{streams: make(chan *stream, 10_000), header: errors.New("not to you")}
		times := 0
		x := follow(t, client.Config{Conn: s, OnConnect: func() { times++ }, Log: slog.New(slog.DiscardHandler)})
		time.Sleep(time.Minute)
		synctest.Wait()
		if st := x.Status(); st.Connected || st.LastError != "not to you" || times > 0 {
			t.Errorf("%+v, told %d times that it is connected", st, times)
		}
		s.mu.Lock()
		s.header = nil
		s.mu.Unlock()
		time.Sleep(time.Minute)
		synctest.Wait()
		if st := x.Status(); !st.Connected || times != 1 {
			t.Errorf("%+v, told %d times that it is connected", st, times)
		}
	})
}

func TestLossAndReturnOfTheServerAreLoggedOnceAndForHowLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		s := &server{streams: make(chan *stream, 100), refuse: errors.New("nobody there")}
		follow(t, client.Config{Conn: s, Log: slog.New(slog.NewTextHandler(&log, nil))})
		time.Sleep(time.Minute)
		s.refuseWith(nil)
		stream := <-s.streams
		time.Sleep(time.Minute)
		s.refuseWith(errors.New("nobody there"))
		close(stream.ended)
		time.Sleep(time.Hour)
		s.refuseWith(nil)
		<-s.streams
		synctest.Wait()
		said := regexp.MustCompile(`msg="([^"]*)"`).FindAllStringSubmatch(log.String(), -1)
		want := []string{
			"control plane not reached yet; trying on",
			"control plane connected",
			"control plane lost; going on with what is known",
			"control plane connected again",
		}
		if len(said) != len(want) {
			t.Fatalf("logged\n%s", log.String())
		}
		for i, w := range want {
			if said[i][1] != w {
				t.Errorf("logged %q, want %q", said[i][1], w)
			}
		}
		if !strings.Contains(log.String(), "gone_for=1h0m") {
			t.Errorf("it does not say for how long:\n%s", log.String())
		}
	})
}
