package discovery

import (
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	meshv1 "github.com/fairlead-mesh/fairlead/api/proto/mesh/v1"
	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

// The bounds of an instance, as the API documents them, besides those of [mesh].
const (
	MinTTL     = 5 * time.Second
	MaxTTL     = time.Hour
	DefaultTTL = 30 * time.Second
	maxPorts   = 16
	// maxIdentity is the longest SPIFFE ID that must be supported (SPIFFE-ID §2.3).
	maxIdentity = 2048
)

// Complete returns a copy of an instance with defaults for what it does not say,
// or a *mesh.InvalidError. leased says that it lives by a TTL.
func Complete(i *meshv1.Instance, leased bool) (*meshv1.Instance, error) {
	c := proto.Clone(i).(*meshv1.Instance)
	c.Namespace = cmp.Or(c.GetNamespace(), mesh.DefaultNamespace)
	c.Weight = cmp.Or(c.GetWeight(), 1)
	if c.GetId() == "" {
		c.Id = "i-" + strings.ToLower(rand.Text()[:10])
	}
	for _, p := range c.GetPorts() {
		p.Protocol = cmp.Or(p.GetProtocol(), meshv1.Protocol_HTTP)
		if p.GetName() == "" && len(c.GetPorts()) == 1 {
			p.Name = strings.ToLower(p.GetProtocol().String())
		}
	}
	if addr, err := netip.ParseAddr(c.GetAddress()); err == nil && addr.Zone() == "" {
		c.Address = addr.Unmap().String()
	}
	if !leased {
		c.Ttl = nil
	} else if c.GetTtl() == nil {
		c.Ttl = durationpb.New(DefaultTTL)
	}
	if faults := check(c); len(faults) > 0 {
		return nil, &mesh.InvalidError{What: "the instance", Faults: faults}
	}
	return c, nil
}

// completeIn is [Complete], and refuses identities that are not of the trust domain,
// unless that is "".
func completeIn(domain string, i *meshv1.Instance, leased bool) (*meshv1.Instance, error) {
	c, err := Complete(i, leased)
	id, bad := mesh.ParseIdentity(i.GetIdentity())
	if bad != nil || domain == "" || id.TrustDomain == domain {
		return c, err
	}
	invalid := &mesh.InvalidError{What: "the instance"}
	_ = errors.As(err, &invalid) // if there is more, it is told together
	invalid.Faults = append(invalid.Faults, mesh.Fault{Field: "identity", Reason: "is not of the trust domain " + domain})
	return nil, invalid
}

// check returns everything that is wrong.
func check(i *meshv1.Instance) (faults []mesh.Fault) {
	fault := func(field, format string, args ...any) {
		faults = append(faults, mesh.Fault{Field: field, Reason: fmt.Sprintf(format, args...)})
	}
	for _, l := range []struct{ field, value string }{
		{"id", i.GetId()}, {"service", i.GetService()}, {"namespace", i.GetNamespace()},
	} {
		if err := mesh.CheckLabel(l.value); err != nil {
			fault(l.field, "%v", err)
		}
	}
	switch addr, err := netip.ParseAddr(i.GetAddress()); {
	case err != nil || addr.IsUnspecified() || addr.IsMulticast() || addr == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		fault("address", "must be an IPv4 or IPv6 address that clients can reach, such as 10.0.0.1")
	case addr.Zone() != "":
		fault("address", "must have no zone: that means something on one machine only")
	}
	checkPorts(i.GetPorts(), fault)
	checkLabels(i.GetLabels(), fault)
	if err := mesh.CheckZone(i.GetZone()); err != nil {
		fault("zone", "%v", err)
	}
	if w := i.GetWeight(); w < 1 || w > mesh.MaxWeight {
		fault("weight", "must be from 1 to %d", mesh.MaxWeight)
	}
	if _, known := meshv1.Status_name[int32(i.GetStatus())]; !known {
		fault("status", "must be HEALTHY, UNHEALTHY or DRAINING")
	}
	if len(i.GetIdentity()) > maxIdentity {
		fault("identity", "must be at most %d characters long", maxIdentity)
	} else if i.GetIdentity() != "" {
		if _, err := mesh.ParseIdentity(i.GetIdentity()); err != nil {
			fault("identity", "%v", err)
		}
	}
	if i.GetTtl() != nil {
		if ttl := i.GetTtl().AsDuration(); i.GetTtl().CheckValid() != nil || ttl < MinTTL || ttl > MaxTTL {
			fault("ttl", "must be from %v to %v", MinTTL, MaxTTL)
		}
	}
	if i.GetInboundPort() > 65535 {
		fault("inboundPort", "must be at most 65535")
	}
	if i.GetTakesKnocks() && i.GetInboundPort() == 0 {
		fault("takesKnocks", "needs an inboundPort: it is the sidecar there that answers")
	}
	return faults
}

func checkPorts(ports []*meshv1.Port, fault func(string, string, ...any)) {
	if len(ports) < 1 || len(ports) > maxPorts {
		fault("ports", "must be between 1 and %d ports", maxPorts)
		return // what is wrong with each of thousands is no help, and no short answer
	}
	names, numbers := map[string]bool{}, map[uint32]bool{}
	for n, p := range ports {
		field := func(name string) string { return fmt.Sprintf("ports[%d].%s", n, name) }
		if err := mesh.CheckLabel(p.GetName()); err != nil {
			fault(field("name"), "%v", err)
		} else if names[p.GetName()] {
			fault(field("name"), "%q is taken by another port", p.GetName())
		}
		if p.GetNumber() < 1 || p.GetNumber() > 65535 {
			fault(field("number"), "must be from 1 to 65535")
		} else if numbers[p.GetNumber()] {
			fault(field("number"), "%d is taken by another port", p.GetNumber())
		}
		if _, known := meshv1.Protocol_name[int32(p.GetProtocol())]; !known {
			fault(field("protocol"), "must be HTTP, HTTP2, GRPC or TCP")
		}
		names[p.GetName()], numbers[p.GetNumber()] = true, true
	}
}

func checkLabels(labels map[string]string, fault func(string, string, ...any)) {
	if len(labels) > mesh.MaxLabels {
		fault("labels", "must be at most %d", mesh.MaxLabels)
		return
	}
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		for _, reason := range mesh.LabelFaults(k, labels[k]) {
			fault(fmt.Sprintf("labels[%.70q]", k), "%s", reason)
		}
	}
}

// Usable reports whether an instance takes new requests.
func Usable(i *meshv1.Instance) bool {
	return i.GetStatus() == meshv1.Status_STATUS_UNSPECIFIED || i.GetStatus() == meshv1.Status_HEALTHY
}
