package codec

import (
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	managerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

const (
	minFlow = 65_535 // RFC 9113 §6.9.2: what either window is without a word
	maxFlow = 1<<31 - 1
	// maxStreams is of listeners: each stream of a client takes memory here.
	maxStreams     = 1 << 16
	maxHostStreams = 1<<31 - 1
	// envoyPingJitter is Envoy's default for interval_jitter.
	envoyPingJitter = 15
)

// optionsProto says nothing of what is the default.
func optionsProto(m *managerv3.HttpConnectionManager, o mesh.HTTPOptions) {
	m.CodecType = map[mesh.HTTPCodec]managerv3.HttpConnectionManager_CodecType{
		mesh.CodecHTTP1: managerv3.HttpConnectionManager_HTTP1, mesh.CodecHTTP2: managerv3.HttpConnectionManager_HTTP2,
	}[o.Codec]
	m.CommonHttpProtocolOptions = keeping{o.IdleTimeout, o.MaxConnectionDuration, o.MaxConnectionJitter, o.MaxRequestsPerConnection}.proto()
	m.Http2ProtocolOptions = http2Proto(o.HTTP2Options)
	m.RequestHeadersTimeout = durationOrNil(o.HeadTimeout)
	if o.Forwarded.RemoteAddress {
		m.UseRemoteAddress = wrapperspb.Bool(true)
		m.SkipXffAppend, m.XffNumTrustedHops = o.Forwarded.SkipAppend, o.Forwarded.TrustedHops
	}
}

// keeping is what is said of connections, of clients as to hosts.
type keeping struct {
	idle     time.Duration
	lifetime time.Duration
	jitter   int32
	requests uint32
}

// proto returns nil for what says nothing.
func (c keeping) proto() *corev3.HttpProtocolOptions {
	if c == (keeping{}) {
		return nil
	}
	m := &corev3.HttpProtocolOptions{
		IdleTimeout:              durationOrNil(c.idle),
		MaxConnectionDuration:    durationOrNil(c.lifetime),
		MaxRequestsPerConnection: numberOrNil(c.requests),
	}
	if c.lifetime != 0 && c.jitter >= 0 {
		m.MaxConnectionDurationJitter = &typev3.Percent{Value: float64(c.jitter)}
	}
	return m
}

func keepingValue(f *faults, at string, m *corev3.HttpProtocolOptions) (c keeping) {
	c.idle = duration(f, field(at, "idle_timeout"), m.GetIdleTimeout(), 0, time.Millisecond, maxTimeout)
	c.lifetime = duration(f, field(at, "max_connection_duration"), m.GetMaxConnectionDuration(), 0, time.Millisecond, maxTimeout)
	c.requests = number(f, field(at, "max_requests_per_connection"), m.GetMaxRequestsPerConnection(), 0, 1, 1<<31-1)
	jitter := m.GetMaxConnectionDurationJitter()
	switch {
	case c.lifetime == 0 && jitter != nil:
		f.add(field(at, "max_connection_duration_jitter"), "needs max_connection_duration")
	case c.lifetime != 0 && jitter == nil:
		c.jitter = mesh.DefaultConnectionJitter
	case jitter != nil:
		c.jitter = int32(percentage(f, field(at, "max_connection_duration_jitter.value"), jitter))
	}
	return c
}

// http2Proto returns nil for what says nothing.
func http2Proto(o mesh.HTTP2Options) *corev3.Http2ProtocolOptions {
	if o == (mesh.HTTP2Options{}) {
		return nil
	}
	m := &corev3.Http2ProtocolOptions{
		MaxConcurrentStreams:        numberOrNil(o.MaxConcurrentStreams),
		InitialStreamWindowSize:     numberOrNil(o.InitialStreamWindow),
		InitialConnectionWindowSize: numberOrNil(o.InitialConnectionWindow),
	}
	if o.Keepalive != (mesh.Keepalive{}) {
		m.ConnectionKeepalive = &corev3.KeepaliveSettings{Interval: durationOrNil(o.Keepalive.Interval), Timeout: durationOrNil(o.Keepalive.Timeout)}
		if o.Keepalive.Interval != 0 {
			m.ConnectionKeepalive.IntervalJitter = &typev3.Percent{Value: float64(o.Keepalive.Jitter)}
		}
	}
	return m
}

func http2Value(f *faults, at string, m *corev3.Http2ProtocolOptions, mostStreams uint32) (o mesh.HTTP2Options) {
	o.MaxConcurrentStreams = number(f, field(at, "max_concurrent_streams"), m.GetMaxConcurrentStreams(), 0, 1, mostStreams)
	o.InitialStreamWindow = number(f, field(at, "initial_stream_window_size"), m.GetInitialStreamWindowSize(), 0, minFlow, maxFlow)
	o.InitialConnectionWindow = number(f, field(at, "initial_connection_window_size"), m.GetInitialConnectionWindowSize(), 0, minFlow, maxFlow)
	keep := m.GetConnectionKeepalive()
	if keep == nil {
		return o
	}
	at = field(at, "connection_keepalive")
	if keep.GetTimeout() == nil {
		f.add(field(at, "timeout"), "must be set")
	}
	o.Keepalive.Timeout = duration(f, field(at, "timeout"), keep.GetTimeout(), 0, time.Millisecond, maxTimeout)
	o.Keepalive.Interval = duration(f, field(at, "interval"), keep.GetInterval(), 0, time.Millisecond, maxTimeout)
	switch jitter := keep.GetIntervalJitter(); {
	case jitter != nil && keep.GetInterval() == nil:
		f.add(field(at, "interval_jitter"), "needs interval")
	case jitter != nil:
		o.Keepalive.Jitter = percentage(f, field(at, "interval_jitter.value"), jitter)
	case keep.GetInterval() != nil:
		o.Keepalive.Jitter = envoyPingJitter
	}
	return o
}

func durationOrNil(d time.Duration) *durationpb.Duration {
	if d == 0 {
		return nil
	}
	return durationpb.New(d)
}

func numberOrNil(n uint32) *wrapperspb.UInt32Value {
	if n == 0 {
		return nil
	}
	return wrapperspb.UInt32(n)
}

func optionsValue(f *faults, path string, m *managerv3.HttpConnectionManager) (o mesh.HTTPOptions) {
	switch m.GetCodecType() {
	case managerv3.HttpConnectionManager_AUTO:
	case managerv3.HttpConnectionManager_HTTP1:
		o.Codec = mesh.CodecHTTP1
	case managerv3.HttpConnectionManager_HTTP2:
		o.Codec = mesh.CodecHTTP2
	default:
		f.add(field(path, "codec_type"), "%s is %s", m.GetCodecType(), notSupported)
	}
	said := keepingValue(f, field(path, "common_http_protocol_options"), m.GetCommonHttpProtocolOptions())
	o.IdleTimeout, o.MaxConnectionDuration, o.MaxConnectionJitter, o.MaxRequestsPerConnection = said.idle, said.lifetime, said.jitter, said.requests
	o.HeadTimeout = duration(f, field(path, "request_headers_timeout"), m.GetRequestHeadersTimeout(), 0, time.Millisecond, maxTimeout)
	if m.GetUseRemoteAddress().GetValue() {
		o.Forwarded = mesh.Forwarded{RemoteAddress: true, SkipAppend: m.GetSkipXffAppend(), TrustedHops: m.GetXffNumTrustedHops()}
		if len(m.GetInternalAddressConfig().GetCidrRanges()) > 0 {
			f.add(field(path, "internal_address_config.cidr_ranges"), "with use_remote_address is %s: leave it out; all clients are external", notSupported)
		}
	}
	o.HTTP2Options = http2Value(f, field(path, "http2_protocol_options"), m.GetHttp2ProtocolOptions(), maxStreams)
	return o
}
