package discovery_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	meshv1 "github.com/fairlead-mesh/fairlead/api/proto/mesh/v1"
	"github.com/fairlead-mesh/fairlead/pkg/discovery"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

// parse reads an instance from proto JSON.
func parse(t testing.TB, json string) *meshv1.Instance {
	t.Helper()
	i := &meshv1.Instance{}
	if err := protojson.Unmarshal([]byte(json), i); err != nil {
		t.Fatal(err)
	}
	return i
}

func TestCompleteFillsInWhatIsNotSaid(t *testing.T) {
	const names = `"id":"a1","service":"orders",`
	for name, c := range map[string]struct {
		leased     bool
		said, want string
	}{
		"the least that can be said": {
			true, `{` + names + `"address":"10.0.0.1","ports":[{"number":9000}]}`,
			`{` + names + `"namespace":"default","address":"10.0.0.1","weight":1,"ttl":"30s",
			  "ports":[{"name":"http","number":9000,"protocol":"HTTP"}]}`,
		},
		"no time to live for who lives by a stream": {
			false, `{` + names + `"address":"10.0.0.1","ports":[{"number":9000}],"ttl":"10s"}`,
			`{` + names + `"namespace":"default","address":"10.0.0.1","weight":1,"ports":[{"name":"http","number":9000,"protocol":"HTTP"}]}`,
		},
		"an only port is called as its protocol": {
			false, `{` + names + `"address":"::1","ports":[{"number":1,"protocol":"GRPC"}]}`,
			`{` + names + `"namespace":"default","address":"::1","weight":1,"ports":[{"name":"grpc","number":1,"protocol":"GRPC"}]}`,
		},
		"an IPv4 address in IPv6 clothes, and other spellings": {
			false, `{` + names + `"address":"::ffff:10.0.0.1","ports":[{"number":1}]}`,
			`{` + names + `"namespace":"default","address":"10.0.0.1","weight":1,"ports":[{"name":"http","number":1,"protocol":"HTTP"}]}`,
		},
		"what is said stays": {
			true,
			`{` + names + `"namespace":"shop","address":"2001:DB8:0::1","weight":10000,"ttl":"3600s","zone":"z","status":"DRAINING","inboundPort":65535,
			  "identity":"spiffe://mesh/ns/shop/sa/orders","labels":{"k":"v"},"ports":[{"name":"a","number":1,"protocol":"TCP"},{"name":"b","number":65535}]}`,
			`{` + names + `"namespace":"shop","address":"2001:db8::1","weight":10000,"ttl":"3600s","zone":"z","status":"DRAINING","inboundPort":65535,
			  "identity":"spiffe://mesh/ns/shop/sa/orders","labels":{"k":"v"},"ports":[{"name":"a","number":1,"protocol":"TCP"},{"name":"b","number":65535,"protocol":"HTTP"}]}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			said := parse(t, c.said)
			got, err := discovery.Complete(said, c.leased)
			if err != nil {
				t.Fatal(err)
			}
			if want := parse(t, c.want); !proto.Equal(got, want) {
				t.Errorf("got  %v\nwant %v", got, want)
			}
			if !proto.Equal(said, parse(t, c.said)) {
				t.Error("the original was changed")
			}
			if again, err := discovery.Complete(got, c.leased); err != nil || !proto.Equal(again, got) {
				t.Errorf("completed again: %v, %v", again, err)
			}
		})
	}
}

func TestCompleteMakesAnIDThatNobodyElseHas(t *testing.T) {
	seen := map[string]bool{}
	for range 100 {
		i, err := discovery.Complete(parse(t, `{"service":"orders","address":"10.0.0.1","ports":[{"number":1}]}`), true)
		if err != nil {
			t.Fatal(err)
		}
		seen[i.GetId()] = true
	}
	if len(seen) != 100 {
		t.Errorf("%d different ids of 100", len(seen))
	}
}

// valid is an instance with nothing wrong.
func valid() *meshv1.Instance {
	return &meshv1.Instance{
		Id: "a1", Service: "orders", Namespace: "default", Address: "10.0.0.1",
		Ports: []*meshv1.Port{{Name: "http", Number: 9000, Protocol: meshv1.Protocol_HTTP}},
	}
}

func TestCompleteNamesTheFieldOfEveryFault(t *testing.T) {
	ports := func(p ...*meshv1.Port) func(*meshv1.Instance) { return func(i *meshv1.Instance) { i.Ports = p } }
	address := func(a string) func(*meshv1.Instance) { return func(i *meshv1.Instance) { i.Address = a } }
	ttl := func(d *durationpb.Duration) func(*meshv1.Instance) { return func(i *meshv1.Instance) { i.Ttl = d } }
	seventeen := slices.Repeat([]*meshv1.Port{{Number: 1}}, 17)
	for name, c := range map[string]struct {
		spoil func(*meshv1.Instance)
		want  []string // fields
	}{
		"nothing":                    {func(*meshv1.Instance) {}, nil},
		"id with capitals":           {func(i *meshv1.Instance) { i.Id = "A1" }, []string{"id"}},
		"id with a slash":            {func(i *meshv1.Instance) { i.Id = "a/../b" }, []string{"id"}},
		"id too long":                {func(i *meshv1.Instance) { i.Id = strings.Repeat("a", 64) }, []string{"id"}},
		"no service":                 {func(i *meshv1.Instance) { i.Service = "" }, []string{"service"}},
		"service with a dot":         {func(i *meshv1.Instance) { i.Service = "a.b" }, []string{"service"}},
		"namespace with a dash last": {func(i *meshv1.Instance) { i.Namespace = "a-" }, []string{"namespace"}},
		"no address":                 {address(""), []string{"address"}},
		"host name for address":      {address("localhost"), []string{"address"}},
		"address with a port":        {address("10.0.0.1:80"), []string{"address"}},
		"unspecified address":        {address("0.0.0.0"), []string{"address"}},
		"unspecified IPv6 address":   {address("::"), []string{"address"}},
		"unspecified, in disguise":   {address("::ffff:0.0.0.0"), []string{"address"}},
		"multicast address":          {address("224.0.0.1"), []string{"address"}},
		"multicast IPv6 address":     {address("ff02::1"), []string{"address"}},
		"broadcast address":          {address("255.255.255.255"), []string{"address"}},
		"broadcast, in disguise":     {address("::ffff:255.255.255.255"), []string{"address"}},
		"address with a zone":        {address("fe80::1%eth0"), []string{"address"}},
		"disguised one with a zone":  {address("::ffff:10.0.0.1%eth0"), []string{"address"}},
		"no ports":                   {ports(), []string{"ports"}},
		"17 ports":                   {ports(seventeen...), []string{"ports"}},
		"port 0":                     {ports(&meshv1.Port{}), []string{"ports[0].number"}},
		"port 65536":                 {ports(&meshv1.Port{Number: 65536}), []string{"ports[0].number"}},
		"port of unknown protocol":   {ports(&meshv1.Port{Number: 1, Protocol: 99}), []string{"ports[0].protocol"}},
		"port with a bad name":       {ports(&meshv1.Port{Number: 1, Name: "h_"}), []string{"ports[0].name"}},
		"two ports without names":    {ports(&meshv1.Port{Number: 1}, &meshv1.Port{Number: 2}), []string{"ports[0].name", "ports[1].name"}},
		"two ports of one name": {
			ports(&meshv1.Port{Name: "a", Number: 1}, &meshv1.Port{Name: "a", Number: 2}), []string{"ports[1].name"},
		},
		"two ports of one number": {
			ports(&meshv1.Port{Name: "a", Number: 1}, &meshv1.Port{Name: "b", Number: 1}), []string{"ports[1].number"},
		},
		"65 labels": {func(i *meshv1.Instance) {
			i.Labels = map[string]string{}
			for n := range 65 {
				i.Labels[fmt.Sprint(n)] = strings.Repeat("v", 1000)
			}
		}, []string{"labels"}},
		"label without a key":      {func(i *meshv1.Instance) { i.Labels = map[string]string{"": "v"} }, []string{`labels[""]`}},
		"label with a long value":  {func(i *meshv1.Instance) { i.Labels = map[string]string{"k": strings.Repeat("v", 256)} }, []string{`labels["k"]`}},
		"label with a long key":    {func(i *meshv1.Instance) { i.Labels = map[string]string{strings.Repeat("k", 64): ""} }, []string{`labels["` + strings.Repeat("k", 64) + `"]`}},
		"label with a line break":  {func(i *meshv1.Instance) { i.Labels = map[string]string{"k": "a\nb"} }, []string{`labels["k"]`}},
		"label with an escape":     {func(i *meshv1.Instance) { i.Labels = map[string]string{"\x1b[2J": ""} }, []string{`labels["\x1b[2J"]`}},
		"zone with a line break":   {func(i *meshv1.Instance) { i.Zone = "a\nb" }, []string{"zone"}},
		"zone too long":            {func(i *meshv1.Instance) { i.Zone = strings.Repeat("z", 64) }, []string{"zone"}},
		"weight beyond the most":   {func(i *meshv1.Instance) { i.Weight = 10_001 }, []string{"weight"}},
		"unknown status":           {func(i *meshv1.Instance) { i.Status = 99 }, []string{"status"}},
		"identity of another form": {func(i *meshv1.Instance) { i.Identity = "spiffe://mesh/orders" }, []string{"identity"}},
		"identity too long":        {func(i *meshv1.Instance) { i.Identity = strings.Repeat("s", 1<<20) }, []string{"identity"}},
		"ttl of less than 5 s":     {ttl(durationpb.New(5*time.Second - 1)), []string{"ttl"}},
		"ttl of more than 1 h":     {ttl(durationpb.New(time.Hour + 1)), []string{"ttl"}},
		"ttl of 0":                 {ttl(&durationpb.Duration{}), []string{"ttl"}},
		"ttl that is none":         {ttl(&durationpb.Duration{Seconds: 10, Nanos: -1}), []string{"ttl"}},
		"inbound port 65536":       {func(i *meshv1.Instance) { i.InboundPort = 65536 }, []string{"inboundPort"}},
		"knocks without a sidecar": {func(i *meshv1.Instance) { i.TakesKnocks = true }, []string{"takesKnocks"}},
		"all at once": {func(i *meshv1.Instance) {
			*i = meshv1.Instance{
				Id: "_", Service: "_", Namespace: "_", Address: "_", Ports: []*meshv1.Port{{Name: "_", Number: 70000, Protocol: 99}},
				Labels: map[string]string{"": "", "k": strings.Repeat("v", 256)}, Zone: strings.Repeat("z", 64), Weight: 10_001, Status: 99,
				Identity: "_", Ttl: durationpb.New(1), InboundPort: 70000,
			}
		}, []string{
			"id", "service", "namespace", "address", "ports[0].name", "ports[0].number", "ports[0].protocol", `labels[""]`, `labels["k"]`,
			"zone", "weight", "status", "identity", "ttl", "inboundPort",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			i := valid()
			c.spoil(i)
			_, err := discovery.Complete(i, true)
			if got := fields(err); !slices.Equal(got, c.want) {
				t.Errorf("faults of %q, want %q: %v", got, c.want, err)
			}
			if err != nil && len(err.Error()) > 10_000 {
				t.Errorf("an answer of %d bytes", len(err.Error()))
			}
		})
	}
}

// fields lists what an InvalidError finds fault with, each with its reason given.
func fields(err error) (names []string) {
	var invalid *mesh.InvalidError
	if !errors.As(err, &invalid) {
		return nil
	}
	for _, f := range invalid.Faults {
		if f.Reason != "" {
			names = append(names, f.Field)
		}
	}
	return names
}

func TestTheAnswerToThousandsOfFaultsIsShort(t *testing.T) {
	i := valid()
	i.Labels = map[string]string{}
	for n := range 10_000 {
		i.Labels[fmt.Sprintf("%0100d", n)] = ""
	}
	i.Ports = slices.Repeat([]*meshv1.Port{{Number: 70000}}, 100_000)
	_, err := discovery.Complete(i, true)
	if got := fields(err); !slices.Equal(got, []string{"ports", "labels"}) {
		t.Errorf("%d faults, want two", len(got))
	}
}

func TestUsableIsWhatTakesNewRequests(t *testing.T) {
	want := map[meshv1.Status]bool{
		meshv1.Status_STATUS_UNSPECIFIED: true, meshv1.Status_HEALTHY: true,
		meshv1.Status_UNHEALTHY: false, meshv1.Status_DRAINING: false,
	}
	got := map[meshv1.Status]bool{}
	for s := range meshv1.Status_name {
		got[meshv1.Status(s)] = discovery.Usable(&meshv1.Instance{Status: meshv1.Status(s)})
	}
	if !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestFaultyAddressesAndPortsAreRefusedInWords(t *testing.T) {
	for address, reason := range map[string]string{
		"localhost":       "must be an IPv4 or IPv6 address that clients can reach, such as 10.0.0.1",
		"255.255.255.255": "must be an IPv4 or IPv6 address that clients can reach, such as 10.0.0.1",
		"fe80::1%eth0":    "must have no zone: that means something on one machine only",
	} {
		_, err := discovery.Complete(&meshv1.Instance{Service: "orders", Address: address, Ports: []*meshv1.Port{{Number: 1}}}, true)
		if want := "the instance is not valid; address: " + reason; err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", address, err, want)
		}
	}
	_, err := discovery.Complete(&meshv1.Instance{Service: "orders", Address: "10.0.0.1"}, true)
	if want := "the instance is not valid; ports: must be between 1 and 16 ports"; err == nil || err.Error() != want {
		t.Errorf("without ports: %v, want %s", err, want)
	}
}
