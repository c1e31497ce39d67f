package mtls

import (
	"crypto/x509"
	"errors"
	"net/netip"
	"strings"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

// errName is why a certificate whose authority is trusted is refused all the same.
var errName = errors.New("the certificate has none of the names that match_typed_subject_alt_names ask for")

// checkNames holds a certificate to the conditions.
func checkNames(c *x509.Certificate, conditions []mesh.SANMatch) error {
	for _, one := range conditions {
		if hasName(c, one) {
			return nil
		}
	}
	return errName
}

// hasName reports whether one of the certificate's names fulfils the condition.
func hasName(c *x509.Certificate, m mesh.SANMatch) bool {
	switch m.Type {
	case mesh.SANDNS:
		for _, name := range c.DNSNames {
			if matchDNS(name, m) {
				return true
			}
		}
	case mesh.SANURI:
		for _, u := range c.URIs {
			if matchText(u.String(), m.Kind, m.Value) {
				return true
			}
		}
	case mesh.SANIP:
		want, err := netip.ParseAddr(m.Value)
		for _, ip := range c.IPAddresses {
			if have, ok := netip.AddrFromSlice(ip); ok && err == nil && have.Unmap() == want.Unmap() {
				return true
			}
		}
	}
	return false
}

// matchDNS compares as DNS does, without regard to case (RFC 4343).
func matchDNS(name string, m mesh.SANMatch) bool {
	name, want := strings.ToLower(name), strings.ToLower(m.Value)
	if m.Kind == mesh.MatchExact && strings.HasPrefix(name, "*.") && !strings.HasPrefix(want, "*") {
		// RFC 9525 §6.3: the wildcard is the whole of the leftmost label, and stands for one.
		label, parent, ok := strings.Cut(want, ".")
		return ok && label != "" && parent == name[2:]
	}
	return matchText(name, m.Kind, want)
}

func matchText(have string, kind mesh.MatchKind, want string) bool {
	switch kind {
	case mesh.MatchExact:
		return have == want
	case mesh.MatchPrefix:
		return strings.HasPrefix(have, want)
	case mesh.MatchSuffix:
		return strings.HasSuffix(have, want)
	default:
		return false
	}
}
