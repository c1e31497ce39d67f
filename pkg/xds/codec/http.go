package codec

import (
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	managerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

const (
	minStreamWindow = 65_535 // RFC 9113 §6.9.2: what it is without a word
	maxStreamWindow = 1<<31 - 1
	maxStreams      = 1 << 16
)

// optionsProto says nothing of what is the default.
func optionsProto(m *managerv3.HttpConnectionManager, o mesh.HTTPOptions) {
	m.CodecType = map[mesh.HTTPCodec]managerv3.HttpConnectionManager_CodecType{
		mesh.CodecHTTP1: managerv3.HttpConnectionManager_HTTP1, mesh.CodecHTTP2: managerv3.HttpConnectionManager_HTTP2,
	}[o.Codec]
	if o.IdleTimeout != 0 || o.MaxConnectionDuration != 0 || o.MaxRequestsPerConnection != 0 {
		m.CommonHttpProtocolOptions = &corev3.HttpProtocolOptions{
			IdleTimeout:              durationOrNil(o.IdleTimeout),
			MaxConnectionDuration:    durationOrNil(o.MaxConnectionDuration),
			MaxRequestsPerConnection: numberOrNil(o.MaxRequestsPerConnection),
		}
	}
	if o.MaxConcurrentStreams != 0 || o.InitialStreamWindow != 0 {
		m.Http2ProtocolOptions = &corev3.Http2ProtocolOptions{
			MaxConcurrentStreams:    numberOrNil(o.MaxConcurrentStreams),
			InitialStreamWindowSize: numberOrNil(o.InitialStreamWindow),
		}
	}
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
	common, at := m.GetCommonHttpProtocolOptions(), field(path, "common_http_protocol_options")
	o.IdleTimeout = duration(f, field(at, "idle_timeout"), common.GetIdleTimeout(), 0, time.Millisecond, maxTimeout)
	o.MaxConnectionDuration = duration(f, field(at, "max_connection_duration"), common.GetMaxConnectionDuration(), 0, time.Millisecond, maxTimeout)
	o.MaxRequestsPerConnection = number(f, field(at, "max_requests_per_connection"), common.GetMaxRequestsPerConnection(), 0, 1, 1<<31-1)
	h2, at := m.GetHttp2ProtocolOptions(), field(path, "http2_protocol_options")
	o.MaxConcurrentStreams = number(f, field(at, "max_concurrent_streams"), h2.GetMaxConcurrentStreams(), 0, 1, maxStreams)
	o.InitialStreamWindow = number(f, field(at, "initial_stream_window_size"), h2.GetInitialStreamWindowSize(), 0, minStreamWindow, maxStreamWindow)
	return o
}
