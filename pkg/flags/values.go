package flags

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
)

// Address is a host:port to connect to: an IP address, in brackets if it is
// IPv6, or a name, and a port from 1 to 65535. The zero value is none.
// It is set with pflag's Var.
type Address string

// Set implements [pflag.Value].
func (a *Address) Set(s string) error {
	host, port, err := splitAddress(s)
	switch {
	case err != nil:
		return err
	case host == "":
		return fmt.Errorf("has no host: want host:port, such as 127.0.0.1:%d", port)
	case port == 0:
		return errors.New("nothing can be reached at port 0: want a port from 1 to 65535")
	}
	*a = Address(s)
	return nil
}

func (a *Address) String() string { return string(*a) }

// Type implements [pflag.Value].
func (a *Address) Type() string { return "host:port" }

// ListenAddress is a host:port to listen on: as [Address], but the host may be
// left out, which means every address of the machine, and port 0 means one that
// is free.
type ListenAddress string

// Set implements [pflag.Value].
func (a *ListenAddress) Set(s string) error {
	if _, _, err := splitAddress(s); err != nil {
		return err
	}
	*a = ListenAddress(s)
	return nil
}

func (a *ListenAddress) String() string { return string(*a) }

// Type implements [pflag.Value].
func (a *ListenAddress) Type() string { return "host:port" }

// splitAddress reads host:port, where host may be empty. Its errors do not
// repeat s, which whoever reports them does.
func splitAddress(s string) (host string, port uint16, err error) {
	if strings.Contains(s, "://") {
		return "", 0, errors.New("is a URL: want host:port, such as 127.0.0.1:8080")
	}
	host, portText, err := net.SplitHostPort(s)
	if err != nil {
		return "", 0, whyNoHostPort(s)
	}
	n, err := strconv.ParseUint(portText, 10, 16)
	if err != nil {
		return "", 0, fmt.Errorf("port %q: want a number up to 65535", portText)
	}
	if host != "" && !isHost(host) {
		return "", 0, fmt.Errorf("host %q: want an IP address or a name", host)
	}
	return host, uint16(n), nil
}

// whyNoHostPort is for the s that [net.SplitHostPort] refuses.
func whyNoHostPort(s string) error {
	if ip, err := netip.ParseAddr(strings.Trim(s, "[]")); err == nil {
		return fmt.Errorf("has no port: want host:port, such as %s", netip.AddrPortFrom(ip, 8080))
	}
	if _, err := strconv.ParseUint(s, 10, 16); err == nil {
		return fmt.Errorf("has no host: want host:port, such as 127.0.0.1:%s", s)
	}
	if strings.Count(s, ":") > 1 {
		return errors.New("want host:port, with an IPv6 address in brackets, such as [::1]:8080")
	}
	return errors.New("want host:port, such as 127.0.0.1:8080")
}

// isHost reports whether s is an IP address or has the form of a host name
// (RFC 1123 §2.1), underscores allowed, as names in use have them.
func isHost(s string) bool {
	if _, err := netip.ParseAddr(s); err == nil {
		return true
	}
	if len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(strings.TrimSuffix(s, "."), ".") {
		if label == "" || len(label) > 63 || strings.Trim(label, nameCharacters) != "" {
			return false
		}
		if strings.HasPrefix(label, "-") || strings.HasSuffix(label, "-") {
			return false
		}
	}
	return true
}

const nameCharacters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"

// KeyValues are pairs given as key=value, repeated or separated by commas. A
// value may be empty and may have an equals sign, but no comma; a key is given
// once. What keys and values may look like is for their user to check.
type KeyValues map[string]string

// Set implements [pflag.Value]. It adds to what was set before.
func (kv *KeyValues) Set(s string) error {
	if *kv == nil {
		*kv = KeyValues{}
	}
	for pair := range strings.SplitSeq(s, ",") {
		key, value, ok := strings.Cut(strings.TrimSpace(pair), "=")
		switch _, again := (*kv)[key]; {
		case !ok:
			return fmt.Errorf("%q has no '=': want key=value, several separated by commas", pair)
		case key == "":
			return fmt.Errorf("%q has no key: want key=value, several separated by commas", pair)
		case again:
			return fmt.Errorf("key %q is given twice", key)
		}
		(*kv)[key] = value
	}
	return nil
}

// String returns the pairs as Set reads them, sorted by key.
func (kv *KeyValues) String() string {
	var pairs []string
	for _, key := range slices.Sorted(maps.Keys(*kv)) {
		pairs = append(pairs, key+"="+(*kv)[key])
	}
	return strings.Join(pairs, ",")
}

// Type implements [pflag.Value].
func (kv *KeyValues) Type() string { return "key=value" }

// Size is a number of bytes, given as 512MiB or 2GiB.
type Size int64

// Set implements [pflag.Value].
func (s *Size) Set(text string) error {
	for _, unit := range sizeUnits() {
		number, ok := strings.CutSuffix(text, unit.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(number, 10, 64)
		if err != nil || n <= 0 || n > math.MaxInt64/unit.bytes {
			break
		}
		*s = Size(n * unit.bytes)
		return nil
	}
	return errors.New("want a whole number and its unit, KiB, MiB or GiB, such as 512MiB")
}

// String returns the size as Set reads it, in the largest unit that fits.
func (s *Size) String() string {
	for _, unit := range sizeUnits() {
		if int64(*s)%unit.bytes == 0 {
			return strconv.FormatInt(int64(*s)/unit.bytes, 10) + unit.name
		}
	}
	return strconv.FormatInt(int64(*s), 10)
}

// Type implements [pflag.Value].
func (s *Size) Type() string { return "size" }

type sizeUnit struct {
	name  string
	bytes int64
}

func sizeUnits() []sizeUnit { return []sizeUnit{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} }

// OneOf sets *p to value and returns a flag value that takes only one of
// allowed.
func OneOf(p *string, value string, allowed ...string) pflag.Value {
	*p = value
	return &oneOf{p, allowed}
}

type oneOf struct {
	chosen  *string
	allowed []string
}

func (o *oneOf) Set(s string) error {
	if !slices.Contains(o.allowed, s) {
		return fmt.Errorf("want one of %s", strings.Join(o.allowed, ", "))
	}
	*o.chosen = s
	return nil
}

func (o *oneOf) String() string { return *o.chosen }

func (o *oneOf) Type() string { return strings.Join(o.allowed, "|") }
