package hpack

import "github.com/fairlead-mesh/fairlead/pkg/proxy/wire"

// staticEntry is a field of the static table.
type staticEntry struct {
	name, value []byte
	id          wire.ID
}

// staticTable is RFC 7541 Appendix A; the entry with index 1 comes first.
//
//nolint:gochecknoglobals // a constant, in a language without constant arrays: nothing writes to it
var staticTable = [61]staticEntry{
	{[]byte(":authority"), []byte(""), wire.Other},
	{[]byte(":method"), []byte("GET"), wire.Other},
	{[]byte(":method"), []byte("POST"), wire.Other},
	{[]byte(":path"), []byte("/"), wire.Other},
	{[]byte(":path"), []byte("/index.html"), wire.Other},
	{[]byte(":scheme"), []byte("http"), wire.Other},
	{[]byte(":scheme"), []byte("https"), wire.Other},
	{[]byte(":status"), []byte("200"), wire.Other},
	{[]byte(":status"), []byte("204"), wire.Other},
	{[]byte(":status"), []byte("206"), wire.Other},
	{[]byte(":status"), []byte("304"), wire.Other},
	{[]byte(":status"), []byte("400"), wire.Other},
	{[]byte(":status"), []byte("404"), wire.Other},
	{[]byte(":status"), []byte("500"), wire.Other},
	{[]byte("accept-charset"), []byte(""), wire.Other},
	{[]byte("accept-encoding"), []byte("gzip, deflate"), wire.Other},
	{[]byte("accept-language"), []byte(""), wire.Other},
	{[]byte("accept-ranges"), []byte(""), wire.Other},
	{[]byte("accept"), []byte(""), wire.Accept},
	{[]byte("access-control-allow-origin"), []byte(""), wire.Other},
	{[]byte("age"), []byte(""), wire.Other},
	{[]byte("allow"), []byte(""), wire.Other},
	{[]byte("authorization"), []byte(""), wire.Other},
	{[]byte("cache-control"), []byte(""), wire.Other},
	{[]byte("content-disposition"), []byte(""), wire.Other},
	{[]byte("content-encoding"), []byte(""), wire.Other},
	{[]byte("content-language"), []byte(""), wire.Other},
	{[]byte("content-length"), []byte(""), wire.ContentLength},
	{[]byte("content-location"), []byte(""), wire.Other},
	{[]byte("content-range"), []byte(""), wire.Other},
	{[]byte("content-type"), []byte(""), wire.ContentType},
	{[]byte("cookie"), []byte(""), wire.Cookie},
	{[]byte("date"), []byte(""), wire.Date},
	{[]byte("etag"), []byte(""), wire.Other},
	{[]byte("expect"), []byte(""), wire.Expect},
	{[]byte("expires"), []byte(""), wire.Other},
	{[]byte("from"), []byte(""), wire.Other},
	{[]byte("host"), []byte(""), wire.Host},
	{[]byte("if-match"), []byte(""), wire.Other},
	{[]byte("if-modified-since"), []byte(""), wire.Other},
	{[]byte("if-none-match"), []byte(""), wire.Other},
	{[]byte("if-range"), []byte(""), wire.Other},
	{[]byte("if-unmodified-since"), []byte(""), wire.Other},
	{[]byte("last-modified"), []byte(""), wire.Other},
	{[]byte("link"), []byte(""), wire.Other},
	{[]byte("location"), []byte(""), wire.Other},
	{[]byte("max-forwards"), []byte(""), wire.Other},
	{[]byte("proxy-authenticate"), []byte(""), wire.ProxyAuthenticate},
	{[]byte("proxy-authorization"), []byte(""), wire.ProxyAuthorization},
	{[]byte("range"), []byte(""), wire.Other},
	{[]byte("referer"), []byte(""), wire.Other},
	{[]byte("refresh"), []byte(""), wire.Other},
	{[]byte("retry-after"), []byte(""), wire.RetryAfter},
	{[]byte("server"), []byte(""), wire.Other},
	{[]byte("set-cookie"), []byte(""), wire.Other},
	{[]byte("strict-transport-security"), []byte(""), wire.Other},
	{[]byte("transfer-encoding"), []byte(""), wire.TransferEncoding},
	{[]byte("user-agent"), []byte(""), wire.UserAgent},
	{[]byte("vary"), []byte(""), wire.Other},
	{[]byte("via"), []byte(""), wire.Other},
	{[]byte("www-authenticate"), []byte(""), wire.Other},
}

// staticByID is the index of the first entry with the name; 0 if there is none.
//
//nolint:gochecknoglobals // a constant, in a language without constant arrays: nothing writes to it
var staticByID = [256]uint8{
	wire.Accept:             19,
	wire.ContentLength:      28,
	wire.ContentType:        31,
	wire.Cookie:             32,
	wire.Date:               33,
	wire.Expect:             35,
	wire.Host:               38,
	wire.ProxyAuthenticate:  48,
	wire.ProxyAuthorization: 49,
	wire.RetryAfter:         53,
	wire.TransferEncoding:   57,
	wire.UserAgent:          58,
}

// treatment is what an encoder does with fields of a name.
type treatment uint8

const (
	lasting treatment = iota // goes into the dynamic table if it repeats
	valued                   // the same, but there are values in the static table
	passing                  // hardly ever has the same value again
	secret                   // holds what nobody may guess by the size of blocks
)

// treatments are by a name's index in the static table; 0 is any other name.
//
//nolint:gochecknoglobals // a constant, in a language without constant arrays: nothing writes to it
var treatments = [len(staticTable) + 1]treatment{
	2:  valued,  // :method
	4:  valued,  // :path
	6:  valued,  // :scheme
	8:  valued,  // :status
	16: valued,  // accept-encoding
	21: passing, // age
	23: secret,  // authorization
	28: passing, // content-length
	30: passing, // content-range
	32: secret,  // cookie
	34: passing, // etag
	36: passing, // expires
	39: passing, // if-match
	40: passing, // if-modified-since
	41: passing, // if-none-match
	42: passing, // if-range
	43: passing, // if-unmodified-since
	44: passing, // last-modified
	46: passing, // location
	49: secret,  // proxy-authorization
	55: secret,  // set-cookie
}

// staticByName returns the index of the first entry with a name in lower case; 0 if
// there is none.
func staticByName(name []byte) int {
	switch string(name) {
	case ":authority":
		return 1
	case ":method":
		return 2
	case ":path":
		return 4
	case ":scheme":
		return 6
	case ":status":
		return 8
	case "accept-charset":
		return 15
	case "accept-encoding":
		return 16
	case "accept-language":
		return 17
	case "accept-ranges":
		return 18
	case "accept":
		return 19
	case "access-control-allow-origin":
		return 20
	case "age":
		return 21
	case "allow":
		return 22
	case "authorization":
		return 23
	case "cache-control":
		return 24
	case "content-disposition":
		return 25
	case "content-encoding":
		return 26
	case "content-language":
		return 27
	case "content-length":
		return 28
	case "content-location":
		return 29
	case "content-range":
		return 30
	case "content-type":
		return 31
	case "cookie":
		return 32
	case "date":
		return 33
	case "etag":
		return 34
	case "expect":
		return 35
	case "expires":
		return 36
	case "from":
		return 37
	case "host":
		return 38
	case "if-match":
		return 39
	case "if-modified-since":
		return 40
	case "if-none-match":
		return 41
	case "if-range":
		return 42
	case "if-unmodified-since":
		return 43
	case "last-modified":
		return 44
	case "link":
		return 45
	case "location":
		return 46
	case "max-forwards":
		return 47
	case "proxy-authenticate":
		return 48
	case "proxy-authorization":
		return 49
	case "range":
		return 50
	case "referer":
		return 51
	case "refresh":
		return 52
	case "retry-after":
		return 53
	case "server":
		return 54
	case "set-cookie":
		return 55
	case "strict-transport-security":
		return 56
	case "transfer-encoding":
		return 57
	case "user-agent":
		return 58
	case "vary":
		return 59
	case "via":
		return 60
	case "www-authenticate":
		return 61
	}
	return 0
}

// staticByValue returns the index of the entry with this value, of those whose name is
// that of the entry index; 0 if there is none.
func staticByValue(index int, value []byte) int {
	switch index {
	case 2:
		switch string(value) {
		case "GET":
			return 2
		case "POST":
			return 3
		}
	case 4:
		switch string(value) {
		case "/":
			return 4
		case "/index.html":
			return 5
		}
	case 6:
		switch string(value) {
		case "http":
			return 6
		case "https":
			return 7
		}
	case 8:
		switch string(value) {
		case "200":
			return 8
		case "204":
			return 9
		case "206":
			return 10
		case "304":
			return 11
		case "400":
			return 12
		case "404":
			return 13
		case "500":
			return 14
		}
	case 16:
		if string(value) == "gzip, deflate" {
			return 16
		}
	}
	return 0
}
