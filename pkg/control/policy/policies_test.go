package policy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	meshv1 "github.com/fairlead-mesh/fairlead/api/proto/mesh/v1"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/store"
	"github.com/fairlead-mesh/fairlead/pkg/store/memstore"
)

// kept is policies over a store that the test sees.
type kept struct {
	*Policies
	store *memstore.Store
	log   *bytes.Buffer
}

func newKept(t *testing.T) kept {
	t.Helper()
	s := memstore.New()
	t.Cleanup(func() { _ = s.Close() })
	var log bytes.Buffer
	return kept{Policies: New(s, slog.New(slog.NewTextHandler(&log, nil))), store: s, log: &log}
}

// see applies all that the store holds.
func (k kept) see(t *testing.T) []mesh.ServiceName {
	t.Helper()
	page, err := k.store.List(t.Context(), store.ListRequest{Prefix: store.Root})
	if err != nil {
		t.Fatal(err)
	}
	return k.Apply(store.Batch{Revision: page.Revision, Puts: page.Entries})
}

// write puts a value as somebody with etcdctl would.
func (k kept) write(t *testing.T, key, value string) {
	t.Helper()
	if _, err := k.store.Txn(t.Context(), store.Txn{Then: []store.Op{store.Put(store.Root+key, []byte(value))}}); err != nil {
		t.Fatal(err)
	}
}

func orders() mesh.ServiceName { return mesh.ServiceName{Name: "orders", Namespace: "shop"} }

func sample() *meshv1.Policy {
	return &meshv1.Policy{
		Service: "orders", Namespace: "shop", LoadBalancing: meshv1.LoadBalancing_RANDOM,
		RequestTimeout: durationpb.New(2 * time.Second), Breaker: &meshv1.Breaker{ConsecutiveFailures: 3},
	}
}

func TestPolicyIsSeenAsItWasPut(t *testing.T) {
	k := newKept(t)
	stored, err := k.Put(t.Context(), sample())
	if err != nil {
		t.Fatal(err)
	}
	if k.Get(orders()) != nil {
		t.Error("it is seen before the store has said so")
	}
	if touched := k.see(t); !slices.Equal(touched, []mesh.ServiceName{orders()}) {
		t.Errorf("touched %v", touched)
	}
	want := sample()
	want.Revision = 2 // the first write of a store
	if got := k.Get(orders()); !proto.Equal(got, want) || !proto.Equal(stored, want) {
		t.Errorf("put %v, returned %v, seen %v", want, stored, got)
	}
}

func TestPutDoesNotChangeWhatItIsGiven(t *testing.T) {
	k, given := newKept(t), &meshv1.Policy{Service: "orders"}
	if _, err := k.Put(t.Context(), given); err != nil {
		t.Fatal(err)
	}
	if want := (&meshv1.Policy{Service: "orders"}); !proto.Equal(given, want) {
		t.Errorf("it is %v now", given)
	}
}

func TestNamespaceIsTheDefaultOneIfNotSaid(t *testing.T) {
	k := newKept(t)
	if p, err := k.Put(t.Context(), &meshv1.Policy{Service: "orders"}); err != nil || p.GetNamespace() != mesh.DefaultNamespace {
		t.Errorf("%v %v", p, err)
	}
	if touched := k.see(t); !slices.Equal(touched, []mesh.ServiceName{{Name: "orders", Namespace: "default"}}) {
		t.Errorf("touched %v", touched)
	}
}

func TestFaultyPolicyIsNotStored(t *testing.T) {
	k, p := newKept(t), sample()
	p.LoadBalancing = 77
	var invalid *mesh.InvalidError
	if _, err := k.Put(t.Context(), p); !errors.As(err, &invalid) {
		t.Errorf("%v", err)
	}
	if touched := k.see(t); touched != nil {
		t.Errorf("stored for %v", touched)
	}
}

func TestPutWithARevisionHoldsOnlyIfItIsTheCurrentOne(t *testing.T) {
	k := newKept(t)
	p := sample()
	p.Revision = 7
	if _, err := k.Put(t.Context(), p); !errors.Is(err, ErrConflict) {
		t.Errorf("a revision of what is not there: %v", err)
	}
	first, err := k.Put(t.Context(), sample())
	if err != nil {
		t.Fatal(err)
	}
	p.Revision, p.LoadBalancing = first.GetRevision(), meshv1.LoadBalancing_ROUND_ROBIN
	second, err := k.Put(t.Context(), p)
	if err != nil || second.GetRevision() <= first.GetRevision() {
		t.Fatalf("the current revision: %v %v", second, err)
	}
	if _, err := k.Put(t.Context(), p); !errors.Is(err, ErrConflict) {
		t.Errorf("an old revision: %v", err)
	}
	if third, err := k.Put(t.Context(), sample()); err != nil || third.GetRevision() <= second.GetRevision() {
		t.Errorf("no revision: %v %v", third, err)
	}
}

func TestDeletedPolicyIsNoMore(t *testing.T) {
	k := newKept(t)
	if _, err := k.Delete(t.Context(), orders()); !errors.Is(err, ErrNotFound) {
		t.Errorf("of none: %v", err)
	}
	put, err := k.Put(t.Context(), sample())
	if err != nil {
		t.Fatal(err)
	}
	k.see(t)
	revision, err := k.Delete(t.Context(), orders())
	if err != nil || revision != put.GetRevision()+1 {
		t.Errorf("revision %d, %v", revision, err)
	}
	key := store.Root + "policies/shop/orders"
	if touched := k.Apply(store.Batch{Revision: revision, Deletes: []string{key}}); !slices.Equal(touched, []mesh.ServiceName{orders()}) {
		t.Errorf("touched %v", touched)
	}
	if k.Get(orders()) != nil {
		t.Error("it is still seen")
	}
	if touched := k.Apply(store.Batch{Revision: revision + 1, Deletes: []string{key}}); touched != nil {
		t.Errorf("what is gone already touches %v", touched)
	}
}

func TestWriteWhoseOutcomeIsUnknownIsFoundOut(t *testing.T) {
	for _, applied := range []bool{true, false} {
		t.Run(fmt.Sprintf("put, applied %v", applied), func(t *testing.T) {
			k := newKept(t)
			k.store.FailNextTxn(applied)
			p, err := k.Put(t.Context(), sample())
			if applied && (err != nil || p.GetRevision() != 2) {
				t.Errorf("%v %v", p, err)
			}
			if !applied && !errors.Is(err, store.ErrUnknownOutcome) {
				t.Errorf("%v", err)
			}
		})
		t.Run(fmt.Sprintf("delete, applied %v", applied), func(t *testing.T) {
			k := newKept(t)
			if _, err := k.Put(t.Context(), sample()); err != nil {
				t.Fatal(err)
			}
			k.store.FailNextTxn(applied)
			revision, err := k.Delete(t.Context(), orders())
			if applied && (err != nil || revision != 3) {
				t.Errorf("%d %v", revision, err)
			}
			if !applied && !errors.Is(err, store.ErrUnknownOutcome) {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestStoreThatIsDownIsTold(t *testing.T) {
	k := newKept(t)
	k.store.SetDown(true)
	if _, err := k.Put(t.Context(), sample()); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("put: %v", err)
	}
	if _, err := k.Delete(t.Context(), orders()); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("delete: %v", err)
	}
	ended, end := context.WithCancel(t.Context())
	end()
	if _, err := k.Put(ended, sample()); err == nil {
		t.Error("a put was made for a caller who has gone")
	}
}

func TestUnreadableValueKeepsTheLastGoodOne(t *testing.T) {
	for name, value := range map[string]string{
		"no JSON":              `nonsense`,
		"nothing":              ``,
		"null":                 `null`,
		"no envelope":          `{"loadBalancing":"RANDOM"}`,
		"empty envelope":       `{}`,
		"a null policy":        `{"policy":null}`,
		"a list":               `{"policy":[]}`,
		"an unknown field":     `{"policy":{"loadBalancingg":"RANDOM"}}`,
		"more in the envelope": `{"policy":{},"owner":"me"}`,
		"more after it":        `{"policy":{}}{"policy":{}}`,
		"an unknown name":      `{"policy":{"loadBalancing":"BEST"}}`,
		"an unknown number":    `{"policy":{"loadBalancing":9}}`,
		"out of bounds":        `{"policy":{"requestTimeout":"7200s"}}`,
		"another service":      `{"policy":{"service":"carts"}}`,
		"another namespace":    `{"policy":{"namespace":"default"}}`,
		"wrong type":           `{"policy":{"requestTimeout":2}}`,
	} {
		t.Run(name, func(t *testing.T) {
			k := newKept(t)
			k.write(t, "policies/shop/orders", `{"policy":{"loadBalancing":"ROUND_ROBIN"}}`)
			k.see(t)
			k.write(t, "policies/shop/orders", value)
			if touched := k.see(t); touched != nil {
				t.Errorf("touched %v", touched)
			}
			if got := k.Get(orders()); got.GetLoadBalancing() != meshv1.LoadBalancing_ROUND_ROBIN || got.GetRevision() != 2 {
				t.Errorf("seen is %v", got)
			}
			if !strings.Contains(k.log.String(), "policies/shop/orders") {
				t.Errorf("nothing of it in the log: %q", k.log)
			}
		})
	}
}

func TestAllThatIsWrongWithAHandWrittenPolicyIsToldAtOnce(t *testing.T) {
	for value, want := range map[string]string{
		`{"policy":{"service":"carts","namespace":"x","foo":1,"loadBalancing":"BEST","requestTimeout":"7200s","breaker":{"disabled":1,"failurePercent":101}}}`: "" +
			"policy.foo: there is no such field; " +
			"policy.loadBalancing: must be one of LOAD_BALANCING_UNSPECIFIED, LEAST_REQUEST, ROUND_ROBIN, WEIGHTED_ROUND_ROBIN, RANDOM; " +
			"policy.breaker.disabled: must be true or false; " +
			`policy.service: is "carts", but the key says "orders"; policy.namespace: is "x", but the key says "shop"; ` +
			"policy.requestTimeout: must be from 1ms to 1h0m0s; policy.breaker.failurePercent: must be from 1 to 100",
		`{}`:              "policy: is required",
		`{"policy":null}`: "policy: is required",
		`{"policy":"x"}`:  "policy: must be an object",
	} {
		_, err := decode(orders(), store.Entry{Value: []byte(value)})
		if want = "the value is not valid; " + want; err == nil || err.Error() != want {
			t.Errorf("%s:\ngot  %v\nwant %s", value, err, want)
		}
	}
}

func TestHandWrittenPolicyNeedNotRepeatItsKey(t *testing.T) {
	for _, value := range []string{
		`{"policy":{}}`,
		`{"policy":{"service":"orders","namespace":"shop"}}`,
		" {\n \"policy\" : { } }\n",
		`{"policy":{"revision":"99"}}`, // the store knows better
	} {
		k := newKept(t)
		k.write(t, "policies/shop/orders", value)
		k.see(t)
		want := &meshv1.Policy{Service: "orders", Namespace: "shop", Revision: 2}
		if got := k.Get(orders()); !proto.Equal(got, want) {
			t.Errorf("%s is seen as %v", value, got)
		}
	}
}

func TestKeysOfOthersAreNobodysPolicy(t *testing.T) {
	k := newKept(t)
	if _, err := k.Put(t.Context(), &meshv1.Policy{Service: "orders"}); err != nil {
		t.Fatal(err)
	}
	k.see(t)
	for _, key := range []string{
		"policies/orders", "policies//orders", "policies/default/", "policies/default/orders/x", "policies/default/ORDERS",
		"services/default/orders", "instances/default/orders/a",
	} {
		if touched := k.Apply(store.Batch{Puts: []store.Entry{{Key: store.Root + key, Value: []byte(`{"policy":{"loadBalancing":"RANDOM"}}`)}}}); touched != nil {
			t.Errorf("a value at %s touches %v", key, touched)
		}
		if touched := k.Apply(store.Batch{Deletes: []string{store.Root + key}}); touched != nil {
			t.Errorf("the end of %s touches %v", key, touched)
		}
	}
	if got := k.Get(mesh.ServiceName{Name: "orders", Namespace: "default"}); got.GetLoadBalancing() != 0 || got == nil {
		t.Errorf("seen is %v", got)
	}
}

func TestOneTooManyIsRefusedAndAKnownOneIsNot(t *testing.T) {
	k := newKept(t)
	var all store.Batch
	for n := range MaxPolicies {
		all.Puts = append(all.Puts, store.Entry{Key: fmt.Sprintf("%spolicies/default/s%d", store.Root, n), Value: []byte(`{"policy":{}}`), ModRevision: 2})
	}
	k.Apply(all)
	if _, err := k.Put(t.Context(), sample()); !errors.Is(err, ErrFull) {
		t.Errorf("one more: %v", err)
	}
	if _, err := k.Put(t.Context(), &meshv1.Policy{Service: "s7"}); err != nil {
		t.Errorf("a known one: %v", err)
	}
}

func TestEqualPoliciesHaveEqualValues(t *testing.T) {
	first, err := encode(sample())
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		later := sample()
		later.Revision = 12
		if again, err := encode(later); err != nil || !bytes.Equal(first, again) {
			t.Fatalf("%s\n%s\n%v", first, again, err)
		}
	}
}

// FuzzDecode: whatever is in the store, it is refused, or it is a policy that holds
// to the bounds and says the same after it was written again.
func FuzzDecode(f *testing.F) {
	for _, seed := range []string{
		`{"policy":{}}`,
		`{"policy":{"service":"orders","namespace":"shop","loadBalancing":"RANDOM","requestTimeout":"2s"}}`,
		`{"policy":{"breaker":{"disabled":true,"window":"10s","openTime":"0.1s","maxOpenTime":"86400s"}}}`,
		`{"policy":{"breaker":{"consecutiveFailures":1001}}}`,
		`{"policy":{"requestTimeout":"-0s"}}`,
		`{"policy":{}} {}`, `{"policy":null}`, `{"Policy":{}}`, `{"policy":{"load_balancing":3}}`, `[`, ``,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		p, err := decode(orders(), store.Entry{Value: value, ModRevision: 5})
		if err != nil {
			return
		}
		if err := Check(p); err != nil {
			t.Fatalf("taken, but %v", err)
		}
		again, err := encode(p)
		if err != nil {
			t.Fatal(err)
		}
		same, err := decode(orders(), store.Entry{Value: again, ModRevision: 5})
		if err != nil || !proto.Equal(p, same) {
			t.Fatalf("%v became %v: %v", p, same, err)
		}
	})
}
