package dns

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errRefused = errors.New("server misbehaving")

// zone answers for names: with addresses, with an error, or that there is no such host.
type zone struct {
	mu      sync.Mutex
	answers map[string]any // of a string of addresses, or of an error
	asked   int
}

func (z *zone) set(name string, answer any) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.answers[name] = answer
}

func (z *zone) lookup(_ context.Context, network, name string) ([]netip.Addr, error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.asked++
	switch answer := z.answers[name].(type) {
	case string:
		var found []netip.Addr
		for one := range strings.FieldsSeq(answer) {
			a := netip.MustParseAddr(one)
			if network == "ip" || network == "ip4" == a.Is4() {
				found = append(found, a)
			}
		}
		return found, nil
	case error:
		return nil, answer
	}
	return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
}

// rig is a cluster whose names a zone answers for.
type rig struct {
	*Cluster
	zone     *zone
	log      bytes.Buffer
	assigned []string // each time; of the zone's lock
}

// soFar is what was assigned.
func (r *rig) soFar() []string {
	r.zone.mu.Lock()
	defer r.zone.mu.Unlock()
	return slices.Clone(r.assigned)
}

func newRig(d mesh.DNS) *rig {
	r := &rig{zone: &zone{answers: map[string]any{}}}
	r.Cluster = New("c", d, Config{
		Lookup: r.zone.lookup,
		Log:    slog.New(slog.NewTextHandler(&r.log, nil)),
		Assign: func(a mesh.LoadAssignment) error {
			var all []string
			for _, e := range a.Endpoints {
				all = append(all, fmt.Sprintf("%s/%d%s", e.Address, e.Weight, e.Zone))
			}
			r.zone.mu.Lock()
			defer r.zone.mu.Unlock()
			r.assigned = append(r.assigned, a.Cluster+": "+strings.Join(all, " "))
			return nil
		},
	})
	return r
}

func named(names ...string) mesh.DNS {
	d := mesh.DNS{Refresh: 5 * time.Second}
	for _, name := range names {
		d.Hosts = append(d.Hosts, mesh.NamedHost{Host: name, Port: 80, Weight: 1})
	}
	return d
}

func TestEachAddressOfEachNameIsAnEndpoint(t *testing.T) {
	d := named("a", "b", "192.0.2.9")
	d.Hosts[1].Weight, d.Hosts[1].Zone, d.Hosts[1].Port = 7, "z", 81
	r := newRig(d)
	r.zone.set("a", "192.0.2.2 192.0.2.1 192.0.2.9 192.0.2.1")
	r.zone.set("b", "192.0.2.3")
	if err := r.Look(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := []string{"c: 192.0.2.1:80/1 192.0.2.2:80/1 192.0.2.9:80/1 192.0.2.3:81/7z"}
	if !slices.Equal(r.assigned, want) {
		t.Errorf("got %q, want %q", r.assigned, want)
	}
	if r.zone.asked != 2 {
		t.Errorf("%d lookups: an address needs none", r.zone.asked)
	}
}

func TestTheFamilyChoosesAmongTheAddresses(t *testing.T) {
	const both = "2001:db8::1 192.0.2.1 2001:db8::2 192.0.2.2"
	for _, test := range []struct {
		name   string
		family mesh.DNSFamily
		answer string
		want   string
	}{
		{"auto takes IPv6", mesh.DNSAuto, both, "[2001:db8::1]:80/1 [2001:db8::2]:80/1"},
		{"auto takes IPv4 if that is all", mesh.DNSAuto, "192.0.2.1", "192.0.2.1:80/1"},
		{"auto takes IPv4 of localhost", mesh.DNSAuto, "::1 127.0.0.1", "127.0.0.1:80/1"},
		{"auto takes IPv6 of localhost if that is all", mesh.DNSAuto, "::1", "[::1]:80/1"},
		{"IPv4 only", mesh.DNSV4Only, both, "192.0.2.1:80/1 192.0.2.2:80/1"},
		{"IPv4 only, and there is none", mesh.DNSV4Only, "2001:db8::1", ""},
		{"IPv6 only", mesh.DNSV6Only, both, "[2001:db8::1]:80/1 [2001:db8::2]:80/1"},
		{"IPv6 only, and there is none", mesh.DNSV6Only, "192.0.2.1", ""},
		{"IPv4 preferred", mesh.DNSV4Preferred, both, "192.0.2.1:80/1 192.0.2.2:80/1"},
		{"IPv4 preferred, and there is none", mesh.DNSV4Preferred, "2001:db8::1", "[2001:db8::1]:80/1"},
		{"all", mesh.DNSAll, both, "192.0.2.1:80/1 192.0.2.2:80/1 [2001:db8::1]:80/1 [2001:db8::2]:80/1"},
		{"IPv4 written as IPv6", mesh.DNSAll, "::ffff:192.0.2.1 192.0.2.1", "192.0.2.1:80/1"},
		{"what leads to this machine, or to many", mesh.DNSAll, "0.0.0.0 :: 224.0.0.1 ff02::1 fe80::1%eth0 192.0.2.1", "192.0.2.1:80/1"},
	} {
		d := named("a")
		d.Family = test.family
		r := newRig(d)
		r.zone.set("a", test.answer)
		if err := r.Look(t.Context()); err != nil {
			t.Fatal(err)
		}
		if want := []string{"c: " + test.want}; !slices.Equal(r.assigned, want) {
			t.Errorf("%s: got %q, want %q", test.name, r.assigned, want)
		}
	}
}

func TestOfALogicalHostOneAddressIsUsedForAsLongAsAnAnswerHasIt(t *testing.T) {
	d := named("a")
	d.Logical = true
	r := newRig(d)
	for _, answer := range []string{"192.0.2.2 192.0.2.1", "192.0.2.1 192.0.2.2", "192.0.2.1 192.0.2.3", "", "192.0.2.3"} {
		r.zone.set("a", answer)
		if err := r.Look(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{"c: 192.0.2.2:80/1", "c: 192.0.2.1:80/1", "c: ", "c: 192.0.2.3:80/1"}
	if !slices.Equal(r.assigned, want) {
		t.Errorf("got %q, want %q", r.assigned, want)
	}
}

func TestWhatIsKnownStaysWhileANameCannotBeLookedUp(t *testing.T) {
	r := newRig(named("a", "b"))
	steps := []struct {
		a, b any
		want string // what is assigned; "" is nothing
	}{
		{errRefused, errRefused, ""},
		{errRefused, "192.0.2.2", "c: 192.0.2.2:80/1"},
		{"192.0.2.1", "192.0.2.2", "c: 192.0.2.1:80/1 192.0.2.2:80/1"},
		{errRefused, errRefused, ""},
		{errRefused, "192.0.2.3", "c: 192.0.2.1:80/1 192.0.2.3:80/1"},
		{"192.0.2.1", "192.0.2.3", ""},
		{nil, "192.0.2.3", "c: 192.0.2.3:80/1"}, // it does not exist
		{nil, nil, "c: "},
	}
	for i, step := range steps {
		r.assigned = nil
		r.zone.set("a", step.a)
		r.zone.set("b", step.b)
		if err := r.Look(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(r.assigned, "; "); got != step.want {
			t.Errorf("step %d: got %q, want %q", i, got, step.want)
		}
	}
	for what, want := range map[string]int{"cannot be looked up": 4, "can be looked up again": 4, "has no address": 2} {
		if got := strings.Count(r.log.String(), what); got != want {
			t.Errorf("%q is said %d times, not %d:\n%s", what, got, want, r.log.String())
		}
	}
}

func TestNamesAreLookedUpAgainInTimeUntilTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(named("a"))
		r.zone.set("a", "192.0.2.1")
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- r.Run(ctx) }()
		time.Sleep(4 * time.Second)
		synctest.Wait()
		if early := r.soFar(); len(early) != 0 {
			t.Errorf("before its time: %q", early)
		}
		time.Sleep(2 * time.Second)
		r.zone.set("a", "192.0.2.2")
		time.Sleep(10 * time.Second)
		synctest.Wait()
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if want := []string{"c: 192.0.2.1:80/1", "c: 192.0.2.2:80/1"}; !slices.Equal(r.assigned, want) {
			t.Errorf("got %q, want %q", r.assigned, want)
		}
		if r.zone.asked != 3 {
			t.Errorf("asked %d times in 16 s", r.zone.asked)
		}
	})
}

func TestALookupIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(named("a", "b"))
		began := time.Now()
		r.config.Lookup = func(ctx context.Context, network, name string) ([]netip.Addr, error) {
			if name == "b" {
				return r.zone.lookup(ctx, network, name)
			}
			<-ctx.Done()
			return nil, ctx.Err()
		}
		r.zone.set("b", "192.0.2.2")
		if err := r.Look(t.Context()); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(began); d != lookupTimeout {
			t.Errorf("after %s", d)
		}
		if want := []string{"c: 192.0.2.2:80/1"}; !slices.Equal(r.assigned, want) {
			t.Errorf("got %q, want %q", r.assigned, want)
		}
	})
}

// TestTheBeginningIsBoundedHoweverManyNamesThereAre has a resolver that answers for the last name only, until it is well again.
func TestTheBeginningIsBoundedHoweverManyNamesThereAre(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var names []string
		for i := range 3 * maxLookups {
			names = append(names, fmt.Sprintf("h%d", i))
		}
		r := newRig(named(append([]string{"well"}, names...)...))
		well := make(chan struct{})
		r.config.Lookup = func(ctx context.Context, _, name string) ([]netip.Addr, error) {
			if name != "well" {
				select {
				case <-ctx.Done():
					return nil, ctx.Err()
				case <-well:
				}
			}
			return []netip.Addr{netip.MustParseAddr("192.0.2.1")}, nil
		}
		began := time.Now()
		if err := r.Begin(t.Context()); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(began); d != lookupTimeout {
			t.Errorf("it took %s", d)
		}
		if want := []string{"c: 192.0.2.1:80/1"}; !slices.Equal(r.assigned, want) {
			t.Errorf("got %q, want %q", r.assigned, want)
		}
		// What was not reached is looked up as soon as it runs, not a refresh later.
		close(well)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- r.Run(ctx) }()
		synctest.Wait()
		for i, h := range r.hosts {
			if !h.known {
				t.Errorf("host %d is not known", i)
			}
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

func TestClustersHaveThePlacesOfLookupsInCommon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		places := Places()
		var atOnce, most atomic.Int32
		var all sync.WaitGroup
		for range 5 * maxLookups {
			r := newRig(named("a", "b"))
			r.config.Places = places
			r.config.Lookup = func(context.Context, string, string) ([]netip.Addr, error) {
				if n := atOnce.Add(1); n > most.Load() {
					most.Store(n)
				}
				time.Sleep(time.Millisecond)
				atOnce.Add(-1)
				return []netip.Addr{netip.MustParseAddr("192.0.2.1")}, nil
			}
			all.Go(func() {
				if err := r.Begin(t.Context()); err != nil || len(r.assigned) != 1 {
					t.Errorf("%q, %v", r.assigned, err)
				}
			})
		}
		all.Wait()
		if most.Load() > maxLookups {
			t.Errorf("%d at once", most.Load())
		}
	})
}

func TestOfAHugeAnswerAThousandAddressesAreUsed(t *testing.T) {
	r := newRig(named("a"))
	var all strings.Builder
	for i := range 5000 {
		_, _ = fmt.Fprintf(&all, "10.0.%d.%d ", i/250, i%250+1)
	}
	r.zone.set("a", all.String())
	if err := r.Look(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(r.assigned[0], ":80/1"); n != maxAddresses {
		t.Errorf("%d endpoints", n)
	}
}
