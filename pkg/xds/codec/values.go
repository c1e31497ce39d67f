package codec

import (
	"fmt"
	"net/netip"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// maxName bounds the names of resources, virtual hosts and routes.
const maxName = 512

// unlimited is how Envoy's limits, whose default is 1024, say that there is none.
const unlimited = ^uint32(0)

// checkName refuses what could not be a resource's name, or would not survive a
// log line. Names of federation (xdstp:) need a service_name and an authority,
// which the subset does not have.
func checkName(f *faults, path, name string) {
	switch {
	case name == "":
		f.add(path, "must not be empty")
	case len(name) > maxName:
		f.add(path, "is %d bytes long, more than %d", len(name), maxName)
	case strings.HasPrefix(name, "xdstp:"):
		f.add(path, "xdstp: names are %s", notSupported)
	default:
		checkText(f, path, name)
	}
}

// checkText refuses control characters and what is not UTF-8.
func checkText(f *faults, path, text string) {
	if !utf8.ValidString(text) || strings.ContainsFunc(text, unicode.IsControl) {
		f.add(path, "must be UTF-8 without control characters")
	}
}

// duration reads d, which must lie in [low, high]; nil means def.
func duration(f *faults, path string, d *durationpb.Duration, def, low, high time.Duration) time.Duration {
	if d == nil {
		return def
	}
	v := d.AsDuration()
	if d.CheckValid() != nil || v < low || v > high {
		f.add(path, "is %s, not %s to %s", durationText(d), short(low), short(high))
	}
	return v
}

// durationText spells a duration of the wire, which may be none of Go's.
func durationText(d *durationpb.Duration) string {
	if d.CheckValid() == nil {
		return short(d.AsDuration())
	}
	return fmt.Sprintf("{seconds: %d, nanos: %d}", d.GetSeconds(), d.GetNanos())
}

// short is [time.Duration.String] without zero minutes and seconds.
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = s[:len(s)-2]
	}
	if strings.HasSuffix(s, "h0m") {
		s = s[:len(s)-2]
	}
	return s
}

// number reads v, which must lie in [low, high]; nil means def.
func number(f *faults, path string, v *wrapperspb.UInt32Value, def, low, high uint32) uint32 {
	if v == nil {
		return def
	}
	switch n := v.GetValue(); {
	case n >= low && n <= high:
	case low == high:
		f.add(path, "is %d, and no other value than %d is supported by Fairlead", n, low)
	default:
		f.add(path, "is %d, not %d to %d", n, low, high)
	}
	return v.GetValue()
}

// limit reads one of Envoy's circuit breaker thresholds.
func limit(f *faults, path string, v *wrapperspb.UInt32Value) uint32 {
	const envoyDefault = 1024
	n := number(f, path, v, envoyDefault, 1, unlimited)
	if n == unlimited {
		return 0
	}
	return n
}

// limitProto is the other direction of [limit].
func limitProto(n uint32) *wrapperspb.UInt32Value {
	if n == 0 {
		n = unlimited
	}
	return wrapperspb.UInt32(n)
}

func addressProto(a netip.AddrPort) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address:       a.Addr().String(),
		PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(a.Port())},
	}}}
}

// listenAddress reads an IP address and a port to listen on; port 0 is one that
// the system chooses.
func listenAddress(f *faults, path string, a *corev3.Address) netip.AddrPort {
	if a.GetSocketAddress() == nil {
		f.add(path, "must be a socket_address")
		return netip.AddrPort{}
	}
	at := field(path, "socket_address")
	ip, err := netip.ParseAddr(a.GetSocketAddress().GetAddress())
	if err != nil || ip.Zone() != "" {
		f.add(field(at, "address"), "is %q, not an IP address", clip(a.GetSocketAddress().GetAddress()))
	}
	return netip.AddrPortFrom(ip.Unmap(), port(f, at, a, 0))
}

// endpointAddress reads an IP address and a port to connect to.
func endpointAddress(f *faults, path string, a *corev3.Address) netip.AddrPort {
	if a.GetSocketAddress() == nil {
		f.add(path, "must be a socket_address")
		return netip.AddrPort{}
	}
	at := field(path, "socket_address")
	ip, err := netip.ParseAddr(a.GetSocketAddress().GetAddress())
	if err != nil || ip.Zone() != "" || ip.IsUnspecified() || ip.IsMulticast() {
		f.add(field(at, "address"), "is %q, not the IP address of a host", clip(a.GetSocketAddress().GetAddress()))
	}
	return netip.AddrPortFrom(ip.Unmap(), port(f, at, a, 1))
}

func port(f *faults, path string, a *corev3.Address, low uint32) uint16 {
	n := a.GetSocketAddress().GetPortValue()
	if _, ok := a.GetSocketAddress().GetPortSpecifier().(*corev3.SocketAddress_PortValue); !ok {
		f.add(field(path, "port_value"), "must be set")
	} else if n < low || n > 65535 {
		f.add(field(path, "port_value"), "is %d, not %d to 65535", n, low)
	}
	return uint16(n)
}

func adsProto() *corev3.ConfigSource {
	return &corev3.ConfigSource{
		ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
		ResourceApiVersion:    corev3.ApiVersion_V3,
	}
}

// checkADS holds a config_source to what [adsProto] writes.
func checkADS(f *faults, path string, c *corev3.ConfigSource) {
	if c.GetAds() == nil {
		f.add(path, "must be ads")
		return
	}
	if c.GetResourceApiVersion() != corev3.ApiVersion_V3 {
		f.add(field(path, "resource_api_version"), "must be V3")
	}
}
