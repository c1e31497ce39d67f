package discovery

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	meshv1 "github.com/fairlead-mesh/fairlead/api/proto/mesh/v1"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/store"
)

// The keys of the registry.
const (
	instancesPrefix = store.Root + "instances/"
	servicesPrefix  = store.Root + "services/"
	replicasPrefix  = store.Root + "replicas/"
)

// Key names an instance.
type Key struct {
	Service mesh.ServiceName
	ID      string
}

func (k Key) path() string {
	return instancesPrefix + k.Service.Namespace + "/" + k.Service.Name + "/" + k.ID
}

func servicePath(s mesh.ServiceName) string { return servicesPrefix + s.Namespace + "/" + s.Name }

// keyOf reads the path of an instance.
func keyOf(path string) (Key, bool) {
	parts := strings.Split(strings.TrimPrefix(path, instancesPrefix), "/")
	if len(parts) != 3 {
		return Key{}, false
	}
	for _, p := range parts {
		if mesh.CheckLabel(p) != nil {
			return Key{}, false
		}
	}
	return Key{Service: mesh.ServiceName{Namespace: parts[0], Name: parts[1]}, ID: parts[2]}, true
}

func serviceOf(path string) (mesh.ServiceName, bool) {
	namespace, name, ok := strings.Cut(strings.TrimPrefix(path, servicesPrefix), "/")
	s, err := mesh.NewServiceName(name, namespace)
	return s, ok && err == nil
}

// Record is an instance as the store has it. It is immutable.
type Record struct {
	Key      Key
	Instance *meshv1.Instance
	// Owner is the replica that holds the stream of an attached instance; "" for one
	// that lives by a lease.
	Owner string
	// Epoch counts the attachments of the instance.
	Epoch int64
	Lease store.LeaseID
	// Revision of the store that wrote it.
	Revision int64
}

// envelope is the JSON in the store, around an instance's proto JSON.
type envelope struct {
	Instance json.RawMessage `json:"instance"`
	Owner    string          `json:"owner,omitempty"`
	Epoch    int64           `json:"epoch,omitempty"`
}

// encode makes the value of a record.
func encode(i *meshv1.Instance, owner string, epoch int64) ([]byte, error) {
	i = proto.Clone(i).(*meshv1.Instance)
	i.Revision = 0 // the store knows
	body, err := protojson.Marshal(i)
	if err != nil {
		return nil, err
	}
	// protojson varies its spaces on purpose; equal instances should have equal values.
	var compact bytes.Buffer
	if err := json.Compact(&compact, body); err != nil {
		return nil, err
	}
	return json.Marshal(envelope{Instance: compact.Bytes(), Owner: owner, Epoch: epoch})
}

// decode reads an entry, which anybody may have written: what the key says need
// not be said again, but must not be contradicted.
func decode(e store.Entry) (*Record, error) {
	key, ok := keyOf(e.Key)
	if !ok {
		return nil, errors.New("the key is not instances/{namespace}/{service}/{id}")
	}
	var env envelope
	d := json.NewDecoder(bytes.NewReader(e.Value))
	d.DisallowUnknownFields()
	if err := d.Decode(&env); err != nil {
		return nil, fmt.Errorf("the value is not the documented JSON: %w", err)
	}
	i := &meshv1.Instance{}
	if err := protojson.Unmarshal(env.Instance, i); err != nil {
		return nil, fmt.Errorf("instance: %w", err)
	}
	for _, c := range []struct{ name, said, key string }{
		{"id", i.GetId(), key.ID}, {"service", i.GetService(), key.Service.Name}, {"namespace", i.GetNamespace(), key.Service.Namespace},
	} {
		if c.said != "" && c.said != c.key {
			return nil, fmt.Errorf("instance.%s is %q, but the key says %q", c.name, c.said, c.key)
		}
	}
	i.Id, i.Service, i.Namespace = key.ID, key.Service.Name, key.Service.Namespace
	leased := i.GetTtl() != nil
	i, err := Complete(i, leased)
	if err != nil {
		return nil, err
	}
	i.Revision = e.ModRevision
	return &Record{Key: key, Instance: i, Owner: env.Owner, Epoch: env.Epoch, Lease: e.Lease, Revision: e.ModRevision}, nil
}

// serviceValue is the JSON of a service: the ports that its instances have or had.
type serviceValue struct {
	Ports []servicePort `json:"ports"`
}

type servicePort struct {
	Name     string `json:"name"`
	Number   uint32 `json:"number"`
	Protocol string `json:"protocol"`
}

func encodeService(ports []*meshv1.Port) ([]byte, error) {
	v := serviceValue{Ports: []servicePort{}}
	for _, p := range ports {
		v.Ports = append(v.Ports, servicePort{p.GetName(), p.GetNumber(), p.GetProtocol().String()})
	}
	return json.Marshal(v)
}

func decodeService(value []byte) ([]*meshv1.Port, error) {
	var v serviceValue
	if err := json.Unmarshal(value, &v); err != nil {
		return nil, err
	}
	var ports []*meshv1.Port
	for _, p := range v.Ports {
		ports = append(ports, &meshv1.Port{Name: p.Name, Number: p.Number, Protocol: meshv1.Protocol(meshv1.Protocol_value[p.Protocol])})
	}
	return ports, nil
}

// mergePorts adds to the ports of a service those of an instance: by name, the
// newest number wins. changed reports whether that made a difference.
func mergePorts(have, more []*meshv1.Port) (merged []*meshv1.Port, changed bool) {
	merged = append(merged, have...)
next:
	for _, p := range more {
		for n, old := range merged {
			if old.GetName() != p.GetName() {
				continue
			}
			if old.GetNumber() != p.GetNumber() || old.GetProtocol() != p.GetProtocol() {
				merged[n], changed = p, true
			}
			continue next
		}
		merged, changed = append(merged, p), true
	}
	return merged, changed
}
