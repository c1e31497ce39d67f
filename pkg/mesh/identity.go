package mesh

import (
	"fmt"
	"net/netip"
	"strings"
)

func parseAddr(s string) (netip.Addr, error) { return netip.ParseAddr(s) }

// Identity is a workload's SPIFFE identity (SPIFFE-ID §2) in the path layout
// that meshes share: spiffe://trust-domain/ns/namespace/sa/account.
type Identity struct {
	TrustDomain string
	Namespace   string
	Account     string
}

// ParseIdentity reads spiffe://trust-domain/ns/namespace/sa/account.
func ParseIdentity(s string) (Identity, error) {
	rest, ok := strings.CutPrefix(s, "spiffe://")
	parts := strings.Split(rest, "/")
	if !ok || len(parts) != 5 || parts[1] != "ns" || parts[3] != "sa" {
		return Identity{}, fmt.Errorf("identity %q: want spiffe://<trust-domain>/ns/<namespace>/sa/<account>", s)
	}
	id := Identity{TrustDomain: parts[0], Namespace: parts[2], Account: parts[4]}
	if err := CheckTrustDomain(id.TrustDomain); err != nil {
		return Identity{}, fmt.Errorf("identity %q: %w", s, err)
	}
	if err := CheckLabel(id.Namespace); err != nil {
		return Identity{}, fmt.Errorf("identity %q: namespace %w", s, err)
	}
	if err := CheckLabel(id.Account); err != nil {
		return Identity{}, fmt.Errorf("identity %q: account %w", s, err)
	}
	return id, nil
}

// CheckTrustDomain reports why s is no SPIFFE trust domain: 1 to 255 of a-z,
// 0-9, '.', '-' and '_' (SPIFFE-ID §2.1).
func CheckTrustDomain(s string) error {
	if s == "" || len(s) > 255 {
		return textError("trust domain must be 1 to 255 characters long")
	}
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '.' && c != '-' && c != '_' {
			return textError("trust domain must consist of a-z, 0-9, '.', '-' and '_'")
		}
	}
	return nil
}
