package http1

import (
	"bytes"

	"github.com/fairlead-mesh/fairlead/pkg/proxy/wire"
)

// targetForm is how a request names its target (RFC 9112 §3.2).
type targetForm uint8

const (
	originForm targetForm = iota
	absoluteForm
	authorityForm
	asteriskForm
)

// parseTarget sets Path and, where the target has one, Authority.
func parseTarget(h *wire.Head, target []byte, secure bool) (targetForm, error) {
	if len(target) == 0 || !wire.IsTarget(target) {
		return 0, errTarget
	}
	if string(h.Method) == "CONNECT" {
		if !wire.NamesTunnel(target) {
			return 0, errTunnelTarget
		}
		h.Authority = target
		return authorityForm, nil
	}
	if target[0] == '/' {
		h.Path = target
		return originForm, nil
	}
	if len(target) == 1 && target[0] == '*' {
		// RFC 9112 §3.2.4: asterisk-form "is only used for a server-wide OPTIONS request".
		if string(h.Method) != "OPTIONS" {
			return 0, errTarget
		}
		h.Path = target
		return asteriskForm, nil
	}
	return absoluteForm, parseAbsolute(h, target, secure)
}

// parseAbsolute reads http://authority/path?query. The scheme is compared without
// case (RFC 3986 §3.1); https is for a connection that has TLS.
func parseAbsolute(h *wire.Head, target []byte, secure bool) error {
	rest, ok := cutScheme(target, "http://")
	if !ok {
		if rest, ok = cutScheme(target, "https://"); ok && !secure {
			return errInsecure
		}
	}
	if !ok {
		return errTarget
	}
	end := bytes.IndexAny(rest, "/?")
	if end < 0 {
		end = len(rest)
	}
	if end == 0 || !wire.IsAuthority(rest[:end]) {
		return errTarget
	}
	h.Authority = rest[:end:end]
	switch {
	case end == len(rest):
		h.Path = []byte("/")
		// RFC 9112 §3.2.4: of an OPTIONS whose URI has "an empty path and no query component",
		// "the last proxy on the request chain MUST send a request-target of "*"".
		if string(h.Method) == "OPTIONS" {
			h.Path = []byte("*")
		}
	case rest[end] == '/':
		h.Path = rest[end:]
	default: // a query without a path: RFC 3986 §6.2.3 makes it "/"
		h.Path = append([]byte{'/'}, rest[end:]...)
	}
	return nil
}

// cutScheme cuts a scheme off, which is given in lower case with its "://".
func cutScheme(target []byte, scheme string) (rest []byte, ok bool) {
	if len(target) < len(scheme) || !wire.EqualFold(target[:len(scheme)], scheme) {
		return nil, false
	}
	return target[len(scheme):], true
}
