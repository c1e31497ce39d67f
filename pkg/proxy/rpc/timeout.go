package rpc

import (
	"math"
	"time"
)

// maxTimeout is what a longer timeout is taken for: 146 years, so that a clock that it is
// added to does not overflow.
const maxTimeout = time.Duration(math.MaxInt64 / 2)

// maxDigits of a timeout.
const maxDigits = 8

// ParseTimeout reads a grpc-timeout: "Timeout → 'grpc-timeout' TimeoutValue TimeoutUnit;
// TimeoutValue → {positive integer as ASCII string of at most 8 digits}; TimeoutUnit →
// Hour / Minute / Second / Millisecond / Microsecond / Nanosecond; 'H' 'M' 'S' 'm' 'u'
// 'n'". Zero, which is not positive, is read: it is what is left when nothing is.
func ParseTimeout(value []byte) (time.Duration, bool) {
	if len(value) < 2 || len(value) > maxDigits+1 {
		return 0, false
	}
	unit, ok := unitOf(value[len(value)-1])
	if !ok {
		return 0, false
	}
	n := int64(0)
	for _, c := range value[:len(value)-1] {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = 10*n + int64(c-'0')
	}
	if n > int64(maxTimeout/unit) {
		return maxTimeout, true
	}
	return time.Duration(n * int64(unit)), true
}

func unitOf(c byte) (time.Duration, bool) {
	switch c {
	case 'H':
		return time.Hour, true
	case 'M':
		return time.Minute, true
	case 'S':
		return time.Second, true
	case 'm':
		return time.Millisecond, true
	case 'u':
		return time.Microsecond, true
	case 'n':
		return time.Nanosecond, true
	}
	return 0, false
}

// AppendTimeout appends a timeout of 0 or more as a grpc-timeout: in the finest unit that
// 8 digits allow, rounded up, so that who says it is the first whose time is over.
func AppendTimeout(dst []byte, d time.Duration) []byte {
	const most = 99_999_999
	unit, name := time.Hour, byte('H')
	for _, c := range [...]byte{'n', 'u', 'm', 'S', 'M'} {
		if u, _ := unitOf(c); d <= most*u {
			unit, name = u, c
			break
		}
	}
	n := d / unit
	if d%unit > 0 {
		n++
	}
	var digits [maxDigits]byte
	at := len(digits)
	for {
		at--
		digits[at] = '0' + byte(n%10)
		if n /= 10; n == 0 {
			break
		}
	}
	return append(append(dst, digits[at:]...), name)
}
