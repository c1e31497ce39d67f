package policy

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	meshv1 "github.com/fairlead-mesh/fairlead/api/proto/mesh/v1"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/store"
	"github.com/fairlead-mesh/fairlead/pkg/strictjson"
)

const prefix = store.Root + "policies/"

// MaxPolicies that are kept. One more is refused with ErrFull.
const MaxPolicies = 20_000

// Errors, beside *mesh.InvalidError and those of the store.
var (
	ErrNotFound = errors.New("the service has no policy")
	// ErrConflict: the policy is not at the revision that the caller knows.
	ErrConflict = errors.New("the policy was changed since")
	ErrFull     = errors.New("there are too many policies")
)

// Policies of all services. It is safe for concurrent use.
type Policies struct {
	store store.Store
	log   *slog.Logger

	mu   sync.Mutex
	byOf map[mesh.ServiceName]*meshv1.Policy // guarded by mu; the policies are not changed
}

// New returns policies kept in s. They are seen when Apply is given what s holds.
func New(s store.Store, log *slog.Logger) *Policies {
	return &Policies{store: s, log: log, byOf: map[mesh.ServiceName]*meshv1.Policy{}}
}

// Apply takes in what the mirror delivers and returns the services whose policy
// changed.
func (p *Policies) Apply(b store.Batch) []mesh.ServiceName {
	p.mu.Lock()
	defer p.mu.Unlock()
	var touched []mesh.ServiceName
	for _, path := range b.Deletes {
		if name, ok := nameOf(path); ok && p.byOf[name] != nil {
			delete(p.byOf, name)
			touched = append(touched, name)
		}
	}
	for _, e := range b.Puts {
		name, ok := nameOf(e.Key)
		if !ok {
			continue
		}
		policy, err := decode(name, e)
		if err != nil {
			// What was wanted before goes on being wanted.
			p.log.Warn("policy set aside", "key", e.Key, "reason", err)
			continue
		}
		p.byOf[name] = policy
		touched = append(touched, name)
	}
	return touched
}

// Get returns the policy of a service, nil if it has none. Do not change it.
func (p *Policies) Get(name mesh.ServiceName) *meshv1.Policy {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.byOf[name]
}

// Put sets the whole policy of a service. If it has a revision, the put holds only
// if that is the current one, else it fails with ErrConflict. It returns the policy
// as it is stored.
func (p *Policies) Put(ctx context.Context, policy *meshv1.Policy) (*meshv1.Policy, error) {
	policy = proto.Clone(policy).(*meshv1.Policy)
	policy.Namespace = cmp.Or(policy.GetNamespace(), mesh.DefaultNamespace)
	if err := Check(policy); err != nil {
		return nil, err
	}
	name := mesh.ServiceName{Namespace: policy.GetNamespace(), Name: policy.GetService()}
	if p.full(name) {
		return nil, fmt.Errorf("%w: %d", ErrFull, MaxPolicies)
	}
	value, err := encode(policy)
	if err != nil {
		return nil, err
	}
	t := store.Txn{Then: []store.Op{store.Put(path(name), value)}}
	if policy.GetRevision() != 0 {
		t.If = []store.Compare{store.ModifiedAt(path(name), policy.GetRevision())}
	}
	result, err := p.write(ctx, t, value)
	if err != nil {
		return nil, err
	}
	policy.Revision = result
	return policy, nil
}

// Delete takes the policy of a service away, and returns a revision that it is gone
// with.
func (p *Policies) Delete(ctx context.Context, name mesh.ServiceName) (int64, error) {
	result, err := p.store.Txn(ctx, store.Txn{
		If:   []store.Compare{store.Exists(path(name))},
		Then: []store.Op{store.Delete(path(name))},
	})
	switch {
	case errors.Is(err, store.ErrUnknownOutcome):
		return p.gone(ctx, name, err)
	case err != nil:
		return 0, err
	case !result.Held:
		return 0, ErrNotFound
	}
	return result.Revision, nil
}

// gone finds out how a deletion ended whose outcome is unknown.
func (p *Policies) gone(ctx context.Context, name mesh.ServiceName, unknown error) (int64, error) {
	if _, err := p.store.Get(ctx, path(name)); !errors.Is(err, store.ErrNotFound) {
		return 0, unknown
	}
	head, err := p.store.Head(ctx)
	if err != nil {
		return 0, unknown
	}
	return head.Revision, nil
}

// write puts a policy, and finds out how a write ended whose outcome is unknown.
func (p *Policies) write(ctx context.Context, t store.Txn, value []byte) (revision int64, err error) {
	result, err := p.store.Txn(ctx, t)
	if errors.Is(err, store.ErrUnknownOutcome) {
		e, getErr := p.store.Get(ctx, t.Then[0].Key)
		if getErr != nil || !bytes.Equal(e.Value, value) {
			return 0, err
		}
		return e.ModRevision, nil
	}
	if err == nil && !result.Held {
		err = ErrConflict
	}
	if err != nil {
		return 0, err
	}
	return result.Revision, nil
}

func (p *Policies) full(name mesh.ServiceName) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.byOf[name] == nil && len(p.byOf) >= MaxPolicies
}

func path(s mesh.ServiceName) string { return prefix + s.Namespace + "/" + s.Name }

func nameOf(path string) (mesh.ServiceName, bool) {
	rest, ok := strings.CutPrefix(path, prefix)
	if !ok {
		return mesh.ServiceName{}, false
	}
	namespace, name, _ := strings.Cut(rest, "/")
	// Nothing is made up for what the key does not say: it would be another key's policy.
	if mesh.CheckLabel(namespace) != nil || mesh.CheckLabel(name) != nil {
		return mesh.ServiceName{}, false
	}
	return mesh.ServiceName{Namespace: namespace, Name: name}, true
}

// envelope is the JSON in the store, around a policy's proto JSON.
type envelope struct {
	Policy json.RawMessage `json:"policy"`
}

func encode(p *meshv1.Policy) ([]byte, error) {
	p = proto.Clone(p).(*meshv1.Policy)
	p.Revision = 0 // the store knows
	body, err := protojson.Marshal(p)
	if err != nil {
		return nil, err
	}
	return json.Marshal(envelope{body}) // which takes out the spaces that protojson varies
}

// decode reads an entry, which anybody may have written: what the key says need
// not be said again, but must not be contradicted.
func decode(name mesh.ServiceName, e store.Entry) (*meshv1.Policy, error) {
	var env envelope
	d := json.NewDecoder(bytes.NewReader(e.Value))
	d.DisallowUnknownFields()
	if err := d.Decode(&env); err != nil {
		return nil, fmt.Errorf("the value is not the documented JSON: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("the value goes on after the documented JSON")
	}
	p := &meshv1.Policy{}
	faults := strictjson.Unmarshal(env.Policy, p)
	for _, c := range []struct{ field, said, key string }{
		{"service", p.GetService(), name.Name}, {"namespace", p.GetNamespace(), name.Namespace},
	} {
		if c.said != "" && c.said != c.key {
			faults = append(faults, mesh.Fault{Field: c.field, Reason: fmt.Sprintf("is %.70q, but the key says %q", c.said, c.key)})
		}
	}
	p.Service, p.Namespace, p.Revision = name.Name, name.Namespace, e.ModRevision
	if faults = mesh.WithOthers(faults, Check(p)); len(faults) > 0 {
		return nil, &mesh.InvalidError{What: "the value", Faults: mesh.Under("policy", faults)}
	}
	return p, nil
}
