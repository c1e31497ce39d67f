package discovery

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	meshv1 "github.com/fairlead-mesh/fairlead/api/proto/mesh/v1"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/store"
	"github.com/fairlead-mesh/fairlead/pkg/strictjson"
)

// The keys of the registry.
const (
	instancesPrefix  = store.Root + "instances/"
	servicesPrefix   = store.Root + "services/"
	replicasPrefix   = store.Root + "replicas/"
	departuresPrefix = store.Root + "departures/"
)

// maxServicePorts bounds the ports that a service remembers. The names of ports are
// whatever its instances call them, so nothing else would.
const maxServicePorts = 128

// Key names an instance.
type Key struct {
	Service mesh.ServiceName
	ID      string
}

func (k Key) path() string {
	return instancesPrefix + k.Service.Namespace + "/" + k.Service.Name + "/" + k.ID
}

func servicePath(s mesh.ServiceName) string { return servicesPrefix + s.Namespace + "/" + s.Name }

// departure is the write that says, in the revision that removes an instance, that it
// was seen to leave: etcd tells the removal of a key and the end of its lease alike.
func departure(k Key) store.Op {
	value, _ := json.Marshal(departureValue{k.ID}) // a string is always JSON
	return store.Put(departuresPrefix+k.Service.Namespace+"/"+k.Service.Name, value)
}

type departureValue struct {
	ID string `json:"id"`
}

// departedIn lists the instances that a revision says have left.
func departedIn(puts []store.Entry) map[Key]bool {
	var left map[Key]bool
	for _, e := range puts {
		service, ok := strings.CutPrefix(e.Key, departuresPrefix)
		if !ok {
			continue
		}
		var v departureValue
		if json.Unmarshal(e.Value, &v) != nil {
			continue // written by hand, and says nothing
		}
		if k, ok := keyOf(instancesPrefix + service + "/" + v.ID); ok {
			if left == nil {
				left = map[Key]bool{}
			}
			left[k] = true
		}
	}
	return left
}

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
	namespace, name, _ := strings.Cut(strings.TrimPrefix(path, servicesPrefix), "/")
	if mesh.CheckLabel(namespace) != nil || mesh.CheckLabel(name) != nil {
		return mesh.ServiceName{}, false
	}
	return mesh.ServiceName{Namespace: namespace, Name: name}, true
}

// Record is an instance as the store has it. It is immutable.
type Record struct {
	Key      Key
	Instance *meshv1.Instance
	// Owner is the replica that holds the stream of an attached instance; "" for one
	// that lives by a lease.
	Owner string
	// Epoch is the attachment, counted by the owner. With it, Owner names one stream.
	Epoch int64
	Lease store.LeaseID
	// Revision of the store that wrote it.
	Revision int64

	granted bool   // Lease was granted by a registry, for this instance alone
	sum     uint64 // of the entry, see [history]
}

// envelope is the JSON in the store, around an instance's proto JSON.
type envelope struct {
	Instance json.RawMessage `json:"instance"`
	Owner    string          `json:"owner,omitempty"`
	Epoch    int64           `json:"epoch,omitempty"`
	// Lease, in hexadecimal, is one that a registry granted for this instance alone,
	// and so may revoke. It is repeated here because the lease of the key may be
	// anybody's, and may keep other keys too: a value that somebody copied under a
	// lease of theirs does not match it.
	Lease string `json:"lease,omitempty"`
}

func leaseName(id store.LeaseID) string { return strconv.FormatInt(int64(id), 16) }

// encode makes the value of a record.
func encode(r *Record) ([]byte, error) {
	i := proto.Clone(r.Instance).(*meshv1.Instance)
	i.Revision, i.Liveness = 0, 0 // the rest of the entry tells
	body, err := protojson.Marshal(i)
	if err != nil {
		return nil, err
	}
	// protojson varies its spaces on purpose; equal instances should have equal values.
	var compact bytes.Buffer
	if err := json.Compact(&compact, body); err != nil {
		return nil, err
	}
	env := envelope{Instance: compact.Bytes(), Owner: r.Owner, Epoch: r.Epoch}
	if r.granted {
		env.Lease = leaseName(r.Lease)
	}
	return json.Marshal(env)
}

// decode reads an entry, which anybody may have written: what the key says need
// not be said again, but must not be contradicted. An identity must be of the trust
// domain, unless that is "".
func decode(e store.Entry, domain string) (*Record, error) {
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
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("the value goes on after the documented JSON")
	}
	i := &meshv1.Instance{}
	faults := strictjson.Unmarshal(env.Instance, i)
	for _, c := range []struct{ name, said, key string }{
		{"id", i.GetId(), key.ID}, {"service", i.GetService(), key.Service.Name}, {"namespace", i.GetNamespace(), key.Service.Namespace},
	} {
		if c.said != "" && c.said != c.key {
			faults = append(faults, mesh.Fault{Field: c.name, Reason: fmt.Sprintf("is %.70q, but the key says %q", c.said, c.key)})
		}
	}
	i.Id, i.Service, i.Namespace = key.ID, key.Service.Name, key.Service.Namespace
	leased := i.GetTtl() != nil
	i, err := completeIn(domain, i, leased)
	faults = mesh.WithOthers(faults, err)
	if leased && e.Lease == 0 { // what a registry writes with a TTL has a lease
		faults = append(faults, mesh.Fault{Field: "ttl", Reason: "nothing ends this key in time: put the key under a lease, or leave ttl out"})
	}
	if len(faults) > 0 {
		return nil, &mesh.InvalidError{What: "the value", Faults: mesh.Under("instance", faults)}
	}
	i.Revision = e.ModRevision
	i.Liveness = liveness(i, env.Owner, e.Lease)
	return &Record{
		Key: key, Instance: i, Owner: env.Owner, Epoch: env.Epoch, Lease: e.Lease, Revision: e.ModRevision,
		granted: e.Lease != 0 && env.Lease == leaseName(e.Lease),
		sum:     sum(e.Key, e.ModRevision, e.Value),
	}, nil
}

func liveness(i *meshv1.Instance, owner string, lease store.LeaseID) meshv1.Liveness {
	switch {
	case owner != "":
		return meshv1.Liveness_STREAM
	case lease == 0:
		return meshv1.Liveness_UNTIL_REMOVED
	case i.GetTtl() != nil:
		return meshv1.Liveness_TTL
	default:
		return meshv1.Liveness_LEASE
	}
}

// sum digests what the store says under a key.
func sum(path string, revision int64, value []byte) uint64 {
	h := sha256.New()
	_, _ = fmt.Fprintf(h, "%s %d ", path, revision) // a hash takes everything
	_, _ = h.Write(value)
	return binary.BigEndian.Uint64(h.Sum(nil))
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
	if len(v.Ports) > maxServicePorts {
		return nil, fmt.Errorf("%d ports; the most is %d", len(v.Ports), maxServicePorts)
	}
	var ports []*meshv1.Port
	for n, p := range v.Ports {
		protocol, known := meshv1.Protocol_value[cmp.Or(p.Protocol, meshv1.Protocol_HTTP.String())]
		if mesh.CheckLabel(p.Name) != nil || p.Number < 1 || p.Number > 65535 || !known || protocol == 0 {
			return nil, fmt.Errorf("ports[%d] needs a name, a number and a protocol as those of instances", n)
		}
		ports = append(ports, &meshv1.Port{Name: p.Name, Number: p.Number, Protocol: meshv1.Protocol(protocol)})
	}
	return ports, nil
}

// tellsNames reports whether have has all of ports by name and protocol.
func tellsNames(have, ports []*meshv1.Port) bool {
	return !slices.ContainsFunc(ports, func(p *meshv1.Port) bool {
		return !slices.ContainsFunc(have, func(h *meshv1.Port) bool {
			return h.GetName() == p.GetName() && h.GetProtocol() == p.GetProtocol()
		})
	})
}

// tellsAll reports whether have says all that ports do, the numbers too.
func tellsAll(have, ports []*meshv1.Port) bool {
	_, more := mergePorts(have, ports)
	return !more
}

// mergePorts adds to the ports of a service those of an instance: by name, the
// newest number wins; those for which there is no room are left out. changed reports
// whether that made a difference.
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
		if len(merged) < maxServicePorts {
			merged, changed = append(merged, p), true
		}
	}
	return merged, changed
}
