package discovery

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	meshv1 "github.com/fairlead-mesh/fairlead/api/proto/mesh/v1"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/store"
)

const ordersA1 = store.Root + "instances/default/orders/a1"

func orders() mesh.ServiceName { return mesh.ServiceName{Namespace: "default", Name: "orders"} }

func entry(value string) store.Entry {
	return store.Entry{Key: ordersA1, Value: []byte(value), ModRevision: 7, Lease: 5}
}

func TestAHandwrittenValueNeedsToSayLittle(t *testing.T) {
	got, err := decode(entry(`{"instance":{"address":"10.0.0.1","ports":[{"number":9000}]}}`), "")
	if err != nil {
		t.Fatal(err)
	}
	want := &meshv1.Instance{
		Id: "a1", Service: "orders", Namespace: "default", Address: "10.0.0.1", Weight: 1, Revision: 7, Liveness: meshv1.Liveness_LEASE,
		Ports: []*meshv1.Port{{Name: "http", Number: 9000, Protocol: meshv1.Protocol_HTTP}},
	}
	if !proto.Equal(got.Instance, want) {
		t.Errorf("got  %v\nwant %v", got.Instance, want)
	}
	if got.Key != (Key{Service: orders(), ID: "a1"}) || got.Owner != "" || got.Epoch != 0 || got.Lease != 5 || got.Revision != 7 || got.granted {
		t.Errorf("record %+v", got)
	}
}

func TestWhatTheKeySaysMayBeRepeatedButNotContradicted(t *testing.T) {
	const rest = `,"address":"10.0.0.1","ports":[{"number":9000}]}}`
	for value, want := range map[string]string{
		`{"instance":{"id":"a1","service":"orders","namespace":"default"` + rest: "",
		`{"instance":{"id":"a2"` + rest:                                          `the value is not valid; instance.id: is "a2", but the key says "a1"`,
		`{"instance":{"service":"payments"` + rest:                               `the value is not valid; instance.service: is "payments", but the key says "orders"`,
		`{"instance":{"namespace":"prod"` + rest:                                 `the value is not valid; instance.namespace: is "prod", but the key says "default"`,
		`{"instance":{"id":"a2","service":"payments","zone":"z","weight":10001` + rest: `the value is not valid; instance.id: is "a2", but the key says "a1"; ` +
			`instance.service: is "payments", but the key says "orders"; instance.weight: must be from 1 to 10000`,
	} {
		_, err := decode(entry(value), "")
		if got := fmt.Sprint(err); err != nil != (want != "") || want != "" && got != want {
			t.Errorf("%s: %v, want %q", value, err, want)
		}
	}
}

func TestAllThatIsWrongWithAValueIsToldAtOnce(t *testing.T) {
	for value, want := range map[string]string{
		`{"instance":{"address":"bad","ports":[],"foo":1}}`: "instance.foo: there is no such field; " +
			"instance.address: must be an IPv4 or IPv6 address that clients can reach, such as 10.0.0.1; instance.ports: must be between 1 and 16 ports",
		`{"instance":{"id":"a2","address":7,"ports":[{"number":9000},{"number":"x"}],"ttl":"soon","identity":"spiffe://evil.example/ns/a/sa/a"}}`: "" +
			"instance.address: must be a text; instance.ports[1].number: must be a whole number from 0 to 4294967295; " +
			`instance.ttl: must be a duration in seconds, such as "1.5s"; instance.id: is "a2", but the key says "a1"; ` +
			"instance.ports[0].name: must not be empty; instance.ports[1].name: must not be empty; instance.identity: is not of the trust domain mesh",
		`{}`:                  "instance: is required",
		`{"instance":null}`:   "instance: is required",
		`{"instance":["a1"]}`: "instance: must be an object",
	} {
		_, err := decode(entry(value), "mesh")
		if want = "the value is not valid; " + want; err == nil || err.Error() != want {
			t.Errorf("%s:\ngot  %v\nwant %s", value, err, want)
		}
	}
}

func TestValuesThatAreSetAside(t *testing.T) {
	const good = `{"instance":{"address":"10.0.0.1","ports":[{"number":9000}]}}`
	for name, e := range map[string]store.Entry{
		"nothing":                 entry(``),
		"no JSON":                 entry(`hello`),
		"no instance":             entry(`{}`),
		"null":                    entry(`null`),
		"null instance":           entry(`{"instance":null}`),
		"list":                    entry(`{"instance":[]}`),
		"the instance bare":       entry(`{"address":"10.0.0.1","ports":[{"number":9000}]}`),
		"unknown envelope field":  entry(`{"instance":{"address":"10.0.0.1","ports":[{"number":9000}]},"onwer":"x"}`),
		"unknown instance field":  entry(`{"instance":{"addr":"10.0.0.1","ports":[{"number":9000}]}}`),
		"more after the value":    entry(good + good),
		"garbage after the value": entry(good + `x`),
		"invalid instance":        entry(`{"instance":{"address":"orders.example","ports":[{"number":9000}]}}`),
		"time to live too short":  entry(`{"instance":{"address":"10.0.0.1","ports":[{"number":9000}],"ttl":"1s"}}`),
		"key with too few parts":  {Key: store.Root + "instances/default/orders", Value: []byte(good)},
		"key with too many parts": {Key: ordersA1 + "/b", Value: []byte(good)},
		"key that is not a label": {Key: store.Root + "instances/default/Orders/a1", Value: []byte(good)},
		"key with an empty part":  {Key: store.Root + "instances//orders/a1", Value: []byte(good)},
	} {
		if r, err := decode(e, ""); err == nil {
			t.Errorf("%s: %+v, want an error", name, r)
		}
	}
}

func TestATimeToLiveNeedsALease(t *testing.T) {
	for _, c := range []struct {
		more  string
		lease store.LeaseID
		want  meshv1.Liveness // unspecified: set aside
	}{
		{`,"ttl":"5s"`, 5, meshv1.Liveness_TTL},
		{`,"ttl":"5s"`, 0, meshv1.Liveness_LIVENESS_UNSPECIFIED},
		{``, 5, meshv1.Liveness_LEASE},
		{``, 0, meshv1.Liveness_UNTIL_REMOVED},
	} {
		e := entry(`{"instance":{"address":"10.0.0.1","ports":[{"number":9000}]` + c.more + `}}`)
		e.Lease = c.lease
		r, err := decode(e, "")
		switch {
		case c.want == meshv1.Liveness_LIVENESS_UNSPECIFIED:
			if err == nil || !strings.Contains(err.Error(), "instance.ttl: ") || !strings.Contains(err.Error(), "put the key under a lease, or leave ttl out") {
				t.Errorf("lease %d, %q: %v, want what to do about ttl", c.lease, c.more, err)
			}
		case err != nil || r.Instance.GetLiveness() != c.want:
			t.Errorf("lease %d, %q: %+v, %v; want %v", c.lease, c.more, r, err, c.want)
		}
	}
}

func TestAReasonDoesNotRepeatMegabytes(t *testing.T) {
	_, err := decode(entry(`{"instance":{"id":"`+strings.Repeat("x", 1<<20)+`"}}`), "")
	if err == nil || len(err.Error()) > 1000 {
		t.Errorf("a reason of %d bytes", len(fmt.Sprint(err)))
	}
}

func full() *meshv1.Instance {
	i := &meshv1.Instance{
		Id: "a1", Service: "orders", Namespace: "default", Address: "2001:db8::1", Zone: "z <&>", Weight: 3, Status: meshv1.Status_DRAINING,
		Ports:    []*meshv1.Port{{Name: "http", Number: 9000, Protocol: meshv1.Protocol_HTTP}, {Name: "rpc", Number: 9001, Protocol: meshv1.Protocol_GRPC}},
		Identity: "spiffe://mesh/ns/default/sa/orders", Ttl: durationpb.New(10 * time.Second), InboundPort: 15006,
		RegisteredAt: timestamppb.New(time.Unix(1, 5)), Labels: map[string]string{},
	}
	for n := range 20 {
		i.Labels[fmt.Sprint("k", n)] = "ü"
	}
	return i
}

func TestWhatIsEncodedDecodesToTheSame(t *testing.T) {
	unleased := full()
	unleased.Ttl = nil
	for liveness, r := range map[meshv1.Liveness]*Record{
		meshv1.Liveness_TTL:           {Instance: full(), Lease: 0x7587, granted: true},
		meshv1.Liveness_STREAM:        {Instance: unleased, Owner: "r1", Epoch: 1 << 60},
		meshv1.Liveness_UNTIL_REMOVED: {Instance: unleased},
	} {
		value, err := encode(r)
		if err != nil {
			t.Fatal(err)
		}
		got, err := decode(store.Entry{Key: ordersA1, Value: value, ModRevision: 9, Lease: r.Lease}, "")
		if err != nil {
			t.Fatal(err)
		}
		want := proto.Clone(r.Instance).(*meshv1.Instance)
		want.Revision, want.Liveness = 9, liveness
		if !proto.Equal(got.Instance, want) || got.Owner != r.Owner || got.Epoch != r.Epoch || got.Lease != r.Lease || got.granted != r.granted {
			t.Errorf("got %+v of %s", got, value)
		}
	}
}

func TestEncodingIsDeterministicAndSaysNoRevision(t *testing.T) {
	i := full()
	i.Revision = 12
	first, err := encode(&Record{Instance: i, Owner: "r1", Epoch: 3})
	if err != nil {
		t.Fatal(err)
	}
	for range 50 {
		again, err := encode(&Record{Instance: full(), Owner: "r1", Epoch: 3})
		if err != nil || !bytes.Equal(first, again) {
			t.Fatalf("%v: %s\nand  %s", err, first, again)
		}
	}
	if i.GetRevision() != 12 {
		t.Error("encoding changed the instance")
	}
}

func TestALeaseIsTheRegistrysOnlyUnderItsOwnNumber(t *testing.T) {
	i := full()
	i.Ttl = nil
	value, err := encode(&Record{Instance: i, Lease: 0x10, granted: true})
	if err != nil {
		t.Fatal(err)
	}
	for lease, want := range map[store.LeaseID]bool{0x10: true, 0x11: false, 0: false} {
		r, err := decode(store.Entry{Key: ordersA1, Value: value, Lease: lease}, "")
		if err != nil || r.granted != want {
			t.Errorf("value of lease 10 under lease %x: granted %t, want %t; %v", lease, r.granted, want, err)
		}
	}
}

func TestServicesWithHostileValuesAreSetAside(t *testing.T) {
	many := make([]string, maxServicePorts+1)
	for n := range many {
		many[n] = fmt.Sprintf(`{"name":"p%d","number":1}`, n)
	}
	for value, ok := range map[string]bool{
		`{"ports":[{"name":"http","number":9000,"protocol":"HTTP"}]}`: true,
		`{"ports":[{"name":"http","number":9000}]}`:                   true,
		`{"ports":[]}`: true,
		`{}`:           true,
		``:             false,
		`[]`:           false,
		`{"ports":[{"name":"Http","number":9000}]}`:                               false,
		`{"ports":[{"name":"http","number":0}]}`:                                  false,
		`{"ports":[{"name":"http","number":65536}]}`:                              false,
		`{"ports":[{"name":"http","number":-1}]}`:                                 false,
		`{"ports":[{"name":"http","number":1,"protocol":"QUIC"}]}`:                false,
		`{"ports":[{"name":"a","number":1,"protocol":"PROTOCOL_UNSPECIFIED"}]}`:   false,
		`{"ports":[` + strings.Join(many, ",") + `]}`:                             false,
		`{"ports":[` + strings.Join(many[:maxServicePorts], ",") + `]}`:           true,
		`{"ports":[{"name":"` + strings.Repeat("a", 1<<20) + `","number":9000}]}`: false,
	} {
		if _, err := decodeService([]byte(value)); (err == nil) != ok {
			t.Errorf("%.100s: %v", value, err)
		}
	}
	for path, ok := range map[string]bool{
		servicesPrefix + "default/orders":   true,
		servicesPrefix + "/orders":          false, // it must not stand for the default namespace
		servicesPrefix + "orders":           false,
		servicesPrefix + "default/":         false,
		servicesPrefix + "default/orders/a": false,
	} {
		if s, got := serviceOf(path); got != ok || ok && servicePath(s) != path {
			t.Errorf("%s: %v, %t", path, s, got)
		}
	}
}

func TestPortsOfAServiceByNameTheNewestWins(t *testing.T) {
	port := func(name string, number uint32) *meshv1.Port {
		return &meshv1.Port{Name: name, Number: number, Protocol: meshv1.Protocol_HTTP}
	}
	have := []*meshv1.Port{port("a", 1), port("b", 2)}
	got, changed := mergePorts(have, []*meshv1.Port{port("b", 3), port("c", 4)})
	names := func(ports []*meshv1.Port) (s []string) {
		for _, p := range ports {
			s = append(s, fmt.Sprint(p.GetName(), p.GetNumber()))
		}
		return s
	}
	if want := []string{"a1", "b3", "c4"}; !slices.Equal(names(got), want) || !changed {
		t.Errorf("%v, %t; want %v", names(got), changed, want)
	}
	if !slices.Equal(names(have), []string{"a1", "b2"}) {
		t.Error("the ports before were changed, which others read")
	}
	if _, changed := mergePorts(got, have[:1]); changed {
		t.Error("changed by what it had")
	}
	for n := range 10 * maxServicePorts {
		got, _ = mergePorts(got, []*meshv1.Port{port(fmt.Sprint("p", n), 1)})
	}
	if len(got) != maxServicePorts {
		t.Errorf("%d ports, want no more than %d", len(got), maxServicePorts)
	}
}

func FuzzDecode(f *testing.F) {
	encoded, err := encode(&Record{Instance: full(), Owner: "r1", Epoch: 3})
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{
		string(encoded),
		`{"instance":{"address":"10.0.0.1","ports":[{"number":9000}]}}`,
		`{"instance":{"address":"10.0.0.1","ports":[{"number":9000},null]}}`,
		`{"instance":{"address":"fe80::1%eth0","ports":[{"number":9000}],"ttl":"99999999999s"}}`,
		`{"instance":{"address":"10.0.0.1","ports":[{"number":1e3,"protocol":7}],"status":9,"weight":-1},"epoch":9223372036854775807}`,
		`{"instance":{"registeredAt":"0000-00-00T00:00:00Z"},"lease":"5"}`,
		`{"instance":` + strings.Repeat(`{"labels":`, 100) + strings.Repeat(`}`, 101),
		`{"ports":[{"name":"http","number":9000,"protocol":"HTTP"}]}`,
		`{"ports":[null,{"number":4294967296}]}`,
		`null`,
		"\xff\x00",
	} {
		f.Add(ordersA1, []byte(seed))
		f.Add(servicePath(orders()), []byte(seed))
	}
	f.Add(instancesPrefix+"//", []byte(`{}`))
	f.Fuzz(func(t *testing.T, path string, value []byte) {
		e := store.Entry{Key: path, Value: value, ModRevision: 7, Lease: 5}
		v := NewView(slog.New(slog.DiscardHandler), "")
		v.Apply(store.Batch{ClusterID: 1, Revision: 7, Puts: []store.Entry{e}})
		v.Settle()
		if all, _ := v.Services(""); len(all) > 0 && len(all[0].Ports) > maxServicePorts {
			t.Errorf("%d ports", len(all[0].Ports))
		}
		r, err := decode(e, "")
		if err != nil {
			return
		}
		if r.Key.path() != path {
			t.Errorf("key %v of %q", r.Key, path)
		}
		if again, err := Complete(r.Instance, r.Instance.GetTtl() != nil); err != nil || !proto.Equal(again, r.Instance) {
			t.Errorf("not complete: %v, %v", r.Instance, err)
		}
		same, err := encode(r)
		if err != nil {
			t.Fatalf("decoded, but cannot be encoded: %v", err)
		}
		if !json.Valid(same) {
			t.Errorf("not JSON: %s", same)
		}
		back, err := decode(store.Entry{Key: path, Value: same, ModRevision: 7, Lease: 5}, "")
		if err != nil || !proto.Equal(back.Instance, r.Instance) || back.Owner != r.Owner || back.Epoch != r.Epoch || back.granted != r.granted {
			t.Errorf("%s became %s: %v", protojson.Format(r.Instance), same, err)
		}
	})
}
