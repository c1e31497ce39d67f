package mesh

import (
	"fmt"
	"net"
	"strings"
)

// DefaultNamespace is where a service lives whose name does not say.
const DefaultNamespace = "default"

// clusterSuffixes may follow name.namespace, as Kubernetes writes names.
const (
	serviceSuffix = ".svc"
	clusterSuffix = ".svc.cluster.local"
)

// maxLabel is the longest a DNS label may be (RFC 1035 §2.3.4).
const maxLabel = 63

// ServiceName names a service of the mesh. Its parts are lower-case DNS labels
// (RFC 1123 §2.1). The zero value names nothing.
type ServiceName struct {
	Name      string
	Namespace string
}

// String returns the canonical spelling, name.namespace.
func (s ServiceName) String() string { return s.Name + "." + s.Namespace }

// IsZero reports whether s names nothing.
func (s ServiceName) IsZero() bool { return s == ServiceName{} }

// NewServiceName validates both parts. An empty namespace means [DefaultNamespace].
func NewServiceName(name, namespace string) (ServiceName, error) {
	if namespace == "" {
		namespace = DefaultNamespace
	}
	if err := CheckLabel(name); err != nil {
		return ServiceName{}, fmt.Errorf("service name %q: %w", name, err)
	}
	if err := CheckLabel(namespace); err != nil {
		return ServiceName{}, fmt.Errorf("namespace %q: %w", namespace, err)
	}
	return ServiceName{Name: name, Namespace: namespace}, nil
}

// CheckLabel reports why s is not a lower-case DNS label of 1 to 63 octets
// (RFC 1123 §2.1), nil if it is one. Names of services, namespaces, ports and
// instances are such labels.
func CheckLabel(s string) error {
	if s == "" {
		return textError("must not be empty")
	}
	if len(s) > maxLabel {
		return textError("must be at most 63 characters long")
	}
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9':
		case c == '-' && i > 0 && i < len(s)-1:
		default:
			return textError("must consist of a-z, 0-9 and inner '-'")
		}
	}
	return nil
}

// textError is an error that is only its text.
type textError string

func (e textError) Error() string { return string(e) }

// Destination is what an authority means: a service, and one of its ports by
// name or by number. An empty Port is the service's first HTTP port.
type Destination struct {
	Service ServiceName
	Port    string
}

// String returns the canonical spelling: name.namespace or name.namespace:port.
// It is the name of the xDS Listener that stands for the destination.
func (d Destination) String() string {
	if d.Port == "" {
		return d.Service.String()
	}
	return d.Service.String() + ":" + d.Port
}

// ParseDestination reads an authority as a client may spell it: name,
// name.namespace, name.namespace.svc or name.namespace.svc.cluster.local, in
// any case, with or without a trailing dot, followed by :port or not. An
// address literal is no destination.
func ParseDestination(authority string) (Destination, error) {
	buf, err := AppendDestination(nil, []byte(authority), DefaultNamespace)
	if err != nil {
		return Destination{}, fmt.Errorf("authority %q: %w", authority, err)
	}
	name, port, _ := strings.Cut(string(buf), ":")
	service, namespace, _ := strings.Cut(name, ".")
	return Destination{Service: ServiceName{Name: service, Namespace: namespace}, Port: port}, nil
}

// AppendDestination appends to dst the canonical spelling of authority, as
// [Destination.String] gives it; a name without a namespace gets the given one.
// It is the request path's form of [ParseDestination]: it allocates nothing if
// dst has room for len(authority)+len(namespace)+1 octets.
func AppendDestination(dst, authority []byte, namespace string) ([]byte, error) {
	host, port := authority, []byte(nil)
	for i, c := range authority {
		if c == ':' {
			host, port = authority[:i], authority[i+1:]
			break
		}
	}
	if len(host) > 0 && host[len(host)-1] == '.' {
		host = host[:len(host)-1]
	}
	start := len(dst)
	for _, c := range host {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		dst = append(dst, c)
	}
	name := trimSuffix(dst[start:], clusterSuffix)
	name = trimSuffix(name, serviceSuffix)
	dst = dst[:start+len(name)]

	dots := 0
	labelStart := 0
	for i := 0; i <= len(name); i++ {
		if i < len(name) && name[i] != '.' {
			continue
		}
		if !isLabel(name[labelStart:i]) {
			return nil, errDestination
		}
		labelStart = i + 1
		if i < len(name) {
			dots++
		}
	}
	switch dots {
	case 0:
		dst = append(dst, '.')
		dst = append(dst, namespace...)
	case 1:
	default:
		return nil, errDestination
	}
	if port == nil {
		return dst, nil
	}
	if !isLabel(port) {
		return nil, errDestinationPort
	}
	dst = append(dst, ':')
	return append(dst, port...), nil
}

const (
	errDestination     textError = "is not a mesh name: want name or name.namespace, optionally followed by :port"
	errDestinationPort textError = "port must be a number or a lower-case port name"
)

// trimSuffix cuts suffix off name only where something is left before it.
func trimSuffix(name []byte, suffix string) []byte {
	if n := len(name) - len(suffix); n > 0 && string(name[n:]) == suffix {
		return name[:n]
	}
	return name
}

// isLabel is [CheckLabel] without the reason, for bytes.
func isLabel(s []byte) bool {
	if len(s) == 0 || len(s) > maxLabel || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for _, c := range s {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}

// ClusterName names the cluster of one port of a service:
// name.namespace:port-name. Canonical names always carry the port.
func ClusterName(service ServiceName, portName string) string {
	return service.String() + ":" + portName
}

// IsLoopback reports whether the host part of a host:port listen address is a
// loopback address or localhost. An empty host means every address, so is not.
func IsLoopback(hostport string) bool {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		return false
	}
	if host == "localhost" {
		return true
	}
	addr, err := parseAddr(host)
	return err == nil && addr.IsLoopback()
}
