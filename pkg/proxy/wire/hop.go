package wire

// MaxConnectionOptions is how many options the Connection fields of a head may
// name. A codec refuses a head that names more: RemoveHopByHop looks at no further
// ones, and what it does not look at would be passed on.
const MaxConnectionOptions = 16

// RemoveHopByHop takes out what was meant for this connection only: the fields that
// Connection names, Connection itself ("Intermediaries MUST parse a received Connection header
// field before a message is forwarded and, for each connection-option in this field, remove any
// header or trailer field(s) from the message with the same name", RFC 9110 §7.6.1), and
// those that are known to be hop-by-hop even unnamed (HTTP2-Settings: RFC 7540 §3.2.1). TE stays
// where a request says trailers, which this proxy forwards.
//
// Connection cannot nominate what other recipients rely on: Host and the framing
// are not among Fields or are kept (RFC 9110 §7.6.1: "A sender MUST NOT send a
// connection option corresponding to a field that is intended for all recipients
// of the content").
func RemoveHopByHop(h *Head) {
	var nominated [MaxConnectionOptions][]byte
	n := 0
	trailers := false
	for i := range h.Fields {
		f := &h.Fields[i]
		switch f.ID {
		case Connection:
			for rest := f.Value; len(rest) > 0 && n < MaxConnectionOptions; {
				var option []byte
				option, rest = NextElement(rest)
				if len(option) > 0 {
					nominated[n] = option
					n++
				}
			}
		case TE:
			trailers = trailers || HasElement(f.Value, "trailers")
		}
	}
	kept := 0
	for i := range h.Fields {
		f := &h.Fields[i]
		if isHopByHop(f.ID) || isNominated(f, nominated[:n]) {
			continue
		}
		if kept != i {
			h.Fields[kept] = *f
		}
		kept++
	}
	h.Fields = h.Fields[:kept]
	if trailers && h.Status == 0 { // RFC 9110 §10.1.4: it is a field of requests
		h.Add(TE, "TE", []byte("trailers"))
	}
}

func isHopByHop(id ID) bool {
	switch id {
	case Connection, KeepAlive, ProxyConnection, ProxyAuthenticate, ProxyAuthorization, TE, Upgrade, HTTP2Settings, TransferEncoding, ContentLength:
		return true
	}
	return false
}

// TrailerAllowed reports whether a field may come behind the body. Those that would
// frame, route or vouch for a message may not (RFC 9110 §6.5.1), nor those that are
// meant for one connection only (§7.6.1).
func TrailerAllowed(id ID) bool {
	switch id {
	case Host, Trailer, ContentType, Expect, FairleadCase, FairleadHops, FairleadPeer, FairleadPeerFailure, FairleadReason:
		return false
	}
	return !isHopByHop(id)
}

func isNominated(f *Field, nominated [][]byte) bool {
	switch f.ID {
	case Host, FairleadCase, FairleadHops, FairleadPeer, FairleadPeerFailure, FairleadReason, Expect,
		XEnvoyExternalAddress, XForwardedFor, XForwardedProto: // by which applications go
		return false
	}
	for _, name := range nominated {
		if equalFoldBytes(f.Name, name) {
			return true
		}
	}
	return false
}

func equalFoldBytes(a, b []byte) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if toLower(a[i]) != toLower(b[i]) {
			return false
		}
	}
	return true
}

// NextElement cuts the first element off a comma-separated list, without the
// white space around it (RFC 9110 §5.6.1). It may be empty.
func NextElement(list []byte) (element, rest []byte) {
	for i, c := range list {
		if c == ',' {
			return Trim(list[:i]), list[i+1:]
		}
	}
	return Trim(list), nil
}

// Names reports whether a list of Connection names the field, whatever the case of both.
func Names(list, field []byte) bool {
	for len(list) > 0 {
		var e []byte
		if e, list = NextElement(list); len(e) > 0 && equalFoldBytes(e, field) {
			return true
		}
	}
	return false
}

// HasElement reports whether a comma-separated list has the lower-case element,
// whatever its case.
func HasElement(list []byte, want string) bool {
	for len(list) > 0 {
		var e []byte
		if e, list = NextElement(list); EqualFold(e, want) {
			return true
		}
	}
	return false
}

// Trim removes optional white space from both ends (RFC 9110 §5.6.3).
func Trim(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == '\t') {
		b = b[:len(b)-1]
	}
	return b
}
