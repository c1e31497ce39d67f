package saga

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
	"github.com/fairlead-mesh/fairlead/pkg/saga/internal/exactjson"
)

// The bounds of a definition.
const (
	// MaxNameBytes bounds ids, and names of steps and labels: letters, digits, and - _ . in between, but for names of steps, which have no dot.
	MaxNameBytes = 128
	// MaxSteps is how many steps a saga has at the most.
	MaxSteps = 32
	// MaxLabels is how many labels; a value has MaxNameBytes, too.
	MaxLabels = 16
	// MaxBodyBytes bounds the body of one call, before and behind its templates are filled in.
	MaxBodyBytes = 32 << 10
	// MaxPathBytes bounds a path likewise.
	MaxPathBytes = 4 << 10
	// MaxHeaders is how many headers a call has; each has MaxHeaderBytes with its name.
	MaxHeaders     = 32
	MaxHeaderBytes = 4 << 10
	// MaxDefinitionBytes bounds a definition as a whole, in JSON.
	MaxDefinitionBytes = 256 << 10
	// MaxMethodBytes bounds a method.
	MaxMethodBytes = 32
	// MaxPlaces is how many places the templates of one call have, MaxPlaceNames how many names lead into a result: each is looked up in up to MaxResultBytes.
	MaxPlaces     = 100
	MaxPlaceNames = 16
	// MaxFaults is how many faults are told; who has more finds the others behind them.
	MaxFaults = 100
	// MaxResultBytes bounds what a step's action answers. What is longer is done all the same, and its result dropped.
	MaxResultBytes = 32 << 10
	// MaxDeadline is the longest deadline.
	MaxDeadline = 365 * 24 * time.Hour
)

// Fault is one thing that is wrong with a definition.
type Fault struct {
	Path string // where, such as steps[2].action.path
	Text string // what, and what would be right
}

// Faults are all that is wrong with a definition.
type Faults []Fault //nolint:errname // they are first of all what is wrong, and read so: saga.Faults

// Error has a line for each fault.
func (f Faults) Error() string {
	lines := make([]string, len(f))
	for i, fault := range f {
		lines[i] = fault.Path + ": " + fault.Text
	}
	return strings.Join(lines, "\n")
}

// checker gathers faults.
type checker struct {
	faults Faults
	places int // of the templates of the call that is looked at
}

// maxFaultBytes bounds where, and what, a fault is: names may be as long as the definition.
const maxFaultBytes = 400

func (c *checker) add(path, format string, args ...any) {
	switch len(c.faults) {
	case MaxFaults + 1:
	case MaxFaults:
		c.faults = append(c.faults, Fault{"", fmt.Sprintf("there are more than these %d faults", MaxFaults)})
	default:
		c.faults = append(c.faults, Fault{cutTo(path, maxFaultBytes), cutTo(fmt.Sprintf(format, args...), maxFaultBytes)})
	}
}

// Check returns all that is wrong with a definition, as Faults, or nil.
func (d *Definition) Check() error {
	c := &checker{}
	c.name("id", d.ID)
	c.duration("deadline", d.Deadline, time.Millisecond, MaxDeadline)
	c.labels(d.Labels)
	if size := d.size(); size > MaxDefinitionBytes {
		c.add("", "the definition has %d bytes, of at most %d", size, MaxDefinitionBytes)
	}
	switch {
	case len(d.Steps) == 0:
		c.add("steps", "a saga has at least one step")
		return c.faults
	case len(d.Steps) > MaxSteps:
		c.add("steps", "%d steps, of at most %d", len(d.Steps), MaxSteps)
		return c.faults
	}
	g := newGraph(d.Steps)
	c.graph(d.Steps, g)
	for i := range d.Steps {
		c.step(d, g, i)
	}
	if len(c.faults) == 0 {
		return nil
	}
	return c.faults
}

// size returns how many bytes the definition has as JSON.
func (d *Definition) size() int {
	b, err := Marshal(d)
	if err != nil { // a body that is no JSON, which is complained of elsewhere
		return 0
	}
	return len(b)
}

func (c *checker) labels(labels map[string]string) {
	if len(labels) > MaxLabels {
		c.add("labels", "%d labels, of at most %d", len(labels), MaxLabels)
		return
	}
	for _, name := range sortedKeys(labels) {
		path := fmt.Sprintf("labels[%q]", name)
		c.name(path, name)
		if v := labels[name]; len(v) > MaxNameBytes || !isPrintable(v) {
			c.add(path, "a value has at most %d bytes of printable text", MaxNameBytes)
		}
	}
}

// graph checks the names of steps and what comes after what.
func (c *checker) graph(steps []Step, g *graph) {
	first := make(map[string]int, len(steps))
	for i := range steps {
		path := fmt.Sprintf("steps[%d].name", i)
		c.name(path, steps[i].Name)
		if strings.Contains(steps[i].Name, ".") {
			c.add(path, "%q has a dot, by which templates part a step's name from its result", steps[i].Name)
		}
		if at, twice := first[steps[i].Name]; twice {
			c.add(path, "%q is also the name of steps[%d]", steps[i].Name, at)
			continue
		}
		first[steps[i].Name] = i
	}
	for i := range steps {
		if n := len(steps[i].After); n > MaxSteps {
			c.add(fmt.Sprintf("steps[%d].after", i), "%d names, of at most %d", n, MaxSteps)
			return
		}
		for k, name := range steps[i].After {
			if _, ok := first[name]; !ok {
				c.add(fmt.Sprintf("steps[%d].after[%d]", i, k), "there is no step %q", name)
			}
		}
	}
	if cycle := g.cycle(); cycle != 0 {
		var names []string
		for i := range steps {
			if cycle.has(i) {
				names = append(names, steps[i].Name)
			}
		}
		c.add("steps", "these wait for each other by after, or for those that do: %s", strings.Join(names, ", "))
		return
	}
	c.kinds(steps, g)
}

// kinds checks that a saga can always be undone up to one point, and from there on only has to go forward.
func (c *checker) kinds(steps []Step, g *graph) {
	pivot := -1
	for i := range steps {
		switch steps[i].kind() {
		case Compensatable, Retriable:
		case Pivot:
			if pivot >= 0 {
				c.add(fmt.Sprintf("steps[%d].kind", i), "steps[%d] is the pivot, and there is at most one", pivot)
				return
			}
			pivot = i
		default:
			c.add(fmt.Sprintf("steps[%d].kind", i), "%q is none of compensatable, pivot, retriable", steps[i].Kind)
			return
		}
	}
	for i := range steps {
		path := fmt.Sprintf("steps[%d].kind", i)
		switch kind := steps[i].kind(); {
		case kind == Compensatable && pivot >= 0 && !g.before[pivot].has(i):
			c.add(path, "%q is compensatable, and so has to come before the pivot %q: what comes behind it, or beside it, is never undone; name it in after, or make it retriable",
				steps[i].Name, steps[pivot].Name)
		case kind == Retriable && pivot >= 0 && !g.before[i].has(pivot):
			c.add(path, "%q is retriable, and so has to come behind the pivot %q: it cannot be undone when that is refused",
				steps[i].Name, steps[pivot].Name)
		case kind == Retriable && pivot < 0:
			for k := range steps {
				if steps[k].kind() == Compensatable && !g.before[i].has(k) {
					c.add(path, "%q is retriable, and so has to come behind %q, which may be refused: it could not be undone then", steps[i].Name, steps[k].Name)
				}
			}
		}
		if steps[i].Compensate != nil && steps[i].kind() != Compensatable {
			c.add(fmt.Sprintf("steps[%d].compensate", i), "a %s step is never undone", steps[i].kind())
		}
	}
}

func (c *checker) step(d *Definition, g *graph, i int) {
	s := &d.Steps[i]
	path := fmt.Sprintf("steps[%d]", i)
	c.duration(path+".timeout", s.Timeout, 10*time.Millisecond, 15*time.Minute)
	if a := s.Retry.Attempts; a < 0 || a > 1000 {
		c.add(path+".retry.attempts", "%d is not 1 to 1000", a)
	}
	c.duration(path+".retry.backoff", s.Retry.Backoff, time.Millisecond, time.Hour)
	c.duration(path+".retry.max", s.Retry.Max, time.Millisecond, 24*time.Hour)
	if s.Retry.Max != 0 && s.Retry.Max < s.Retry.Backoff {
		c.add(path+".retry.max", "%v is less than backoff, %v", time.Duration(s.Retry.Max), time.Duration(s.Retry.Backoff))
	}
	c.call(path+".action", &s.Action, scope{definition: d, readable: g.before[i], own: -1})
	if s.Compensate != nil {
		c.call(path+".compensate", s.Compensate, scope{definition: d, readable: g.before[i] | 1<<i, own: i})
	}
}

func (c *checker) call(path string, call *Call, in scope) {
	if _, err := mesh.ParseDestination(call.Service); err != nil {
		c.add(path+".service", "%v", err)
	}
	c.places = 0
	if call.GRPC != "" {
		c.grpc(path, call)
	} else {
		c.method(path+".method", call.Method)
		c.path(path+".path", call, in)
	}
	c.headers(path+".headers", call, in)
	c.body(path+".body", call, in)
	if c.places > MaxPlaces {
		c.add(path, "%d places to fill in, of at most %d", c.places, MaxPlaces)
	}
	for _, status := range sortedKeys(call.Statuses) {
		at := fmt.Sprintf("%s.statuses[%q]", path, status)
		switch n, err := strconv.Atoi(status); {
		case call.GRPC != "":
			if codes := grpcCodes(); !slices.Contains(codes[:], status) {
				c.add(at, "over gRPC, a status is one of %s", strings.Join(codes[:], ", "))
			}
		case err != nil || len(status) != 3 || n < 200 || n > 599:
			c.add(at, "a status is three digits, 200 to 599")
		}
		if a := call.Statuses[status]; a != AnswerDone && a != AnswerRefused && a != AnswerUnknown && a != AnswerPending {
			c.add(at, "%q is none of done, refused, unknown, pending", a)
		}
	}
}

func (c *checker) grpc(at string, call *Call) {
	c.name(at+".grpc", call.GRPC)
	if call.Method != "" {
		c.add(at+".method", "a call has either grpc, or method and path")
	}
	if call.Path != "" {
		c.add(at+".path", "a call has either grpc, or method and path")
	}
	for _, name := range sortedKeys(call.Headers) {
		at := fmt.Sprintf("%s.headers[%q]", at, name)
		switch lower := strings.ToLower(name); {
		case lower == "content-type":
			c.add(at, "gRPC sets this header")
		case strings.HasSuffix(lower, "-bin"):
			c.add(at, "metadata of this name is bytes, and a header is text")
		case !isMetadata(call.Headers[name]):
			c.add(at, "metadata is printable ASCII")
		}
	}
}

func (c *checker) method(at, method string) {
	switch {
	case method == "":
	case !isToken(method), len(method) > MaxMethodBytes:
		c.add(at, "%q is no method of HTTP with at most %d bytes", method, MaxMethodBytes)
	case strings.EqualFold(method, "CONNECT"), strings.EqualFold(method, "TRACE"):
		c.add(at, "%s asks for a tunnel, or for an echo, not for an action", strings.ToUpper(method))
	}
}

func (c *checker) path(at string, call *Call, in scope) {
	switch {
	case !strings.HasPrefix(call.Path, "/"):
		c.add(at, "%q does not begin with /", call.Path)
	case len(call.Path) > MaxPathBytes:
		c.add(at, "%d bytes, of at most %d", len(call.Path), MaxPathBytes)
	case hasDots(call.Path):
		c.add(at, "%q has a segment of dots, which leads elsewhere", call.Path)
	default:
		t, err := parseTemplate(call.Path)
		if err != nil {
			c.add(at, "%v", err)
			return
		}
		for _, part := range t {
			if part.isText() && strings.ContainsFunc(part.text, func(r rune) bool { return r <= ' ' || r == '#' || r >= 0x7f || r == '\\' }) {
				c.add(at, "only printable ASCII, without spaces, # and \\: percent-encode what else there is")
				break
			}
			if part.isText() && !isEncoded(part.text) {
				c.add(at, "a %% is followed by two hexadecimal digits (RFC 3986 §2.1)")
				break
			}
		}
		c.template(at, t, in)
	}
}

func (c *checker) headers(at string, call *Call, in scope) {
	if len(call.Headers) > MaxHeaders {
		c.add(at, "%d headers, of at most %d", len(call.Headers), MaxHeaders)
		return
	}
	if len(call.Headers) == 0 {
		return
	}
	spelled := make(map[string]string, len(call.Headers))
	for _, name := range sortedKeys(call.Headers) {
		at := fmt.Sprintf("%s[%q]", at, name)
		value := call.Headers[name]
		switch {
		case !isToken(name):
			c.add(at, "this is no name of a header (RFC 9110 §5.1)")
		case spelled[strings.ToLower(name)] != "":
			c.add(at, "this is also given as %q: there is one header of a name, whose case does not matter", spelled[strings.ToLower(name)])
		case isReserved(name):
			c.add(at, "the coordinator, or the connection, sets this header")
		case len(name)+len(value) > MaxHeaderBytes:
			c.add(at, "%d bytes with its name, of at most %d", len(name)+len(value), MaxHeaderBytes)
		case !isFieldValue(value):
			c.add(at, "a value has neither line ends nor other control characters (RFC 9110 §5.5)")
		default:
			spelled[strings.ToLower(name)] = name
			t, err := parseTemplate(value)
			if err != nil {
				c.add(at, "%v", err)
				continue
			}
			c.template(at, t, in)
		}
	}
}

// isEncoded reports whether each % begins the code of a byte.
func isEncoded(s string) bool {
	for {
		_, rest, found := strings.Cut(s, "%")
		if !found {
			return true
		}
		if len(rest) < 2 || !isHex(rest[0]) || !isHex(rest[1]) {
			return false
		}
		s = rest[2:]
	}
}

func isHex(b byte) bool {
	return '0' <= b && b <= '9' || 'a' <= b && b <= 'f' || 'A' <= b && b <= 'F'
}

func (c *checker) body(at string, call *Call, in scope) {
	if len(call.Body) == 0 {
		return
	}
	if len(call.Body) > MaxBodyBytes {
		c.add(at, "%d bytes, of at most %d", len(call.Body), MaxBodyBytes)
		return
	}
	if !json.Valid(call.Body) || !utf8.Valid(call.Body) {
		c.add(at, "this is no JSON in UTF-8 (RFC 8259)")
		return
	}
	err := eachString(call.Body, func(s string) {
		if t, err := parseTemplate(s); err != nil {
			c.add(at, "%v", err)
		} else {
			c.template(at, t, in)
		}
	})
	if err != nil {
		c.add(at, "%v", err)
	}
}

// template checks what a template reads.
func (c *checker) template(at string, t template, in scope) {
	for _, part := range t {
		if !part.isText() {
			c.places++
		}
		if part.step == "" {
			continue
		}
		if n := len(part.path); n > MaxPlaceNames {
			c.add(at, "%d names lead into the result of %q, of at most %d", n, part.step, MaxPlaceNames)
			continue
		}
		i := slices.IndexFunc(in.definition.Steps, func(s Step) bool { return s.Name == part.step })
		switch {
		case i < 0:
			c.add(at, "%s: there is no step %q", part.source, part.step)
		case !in.readable.has(i):
			c.add(at, "%s: %q need not be done by then: only results of steps that come before can be read; name it in after", part.source, part.step)
		case i == in.own && !part.hasDefault:
			c.add(at, "%s: the step may have no result when it is undone, as when its outcome is unknown: give a default, as in %s:-null}", part.source, strings.TrimSuffix(part.source, "}"))
		}
	}
}

func (c *checker) name(path, s string) {
	switch {
	case s == "":
		c.add(path, "required")
	case len(s) > MaxNameBytes:
		c.add(path, "%d bytes, of at most %d", len(s), MaxNameBytes)
	case !IsName(s):
		c.add(path, "%q is no name: letters, digits, and - _ . in between", s)
	}
}

func (c *checker) duration(path string, d Duration, least, most time.Duration) {
	if d != 0 && (time.Duration(d) < least || time.Duration(d) > most) {
		c.add(path, "%v is not %v to %v", time.Duration(d), least, most)
	}
}

// IsName reports whether a saga, a step or a label can be called s; a step's name has no dot besides.
func IsName(s string) bool {
	if s == "" || len(s) > MaxNameBytes {
		return false
	}
	for i := range len(s) {
		switch b := s[i]; {
		case 'a' <= b && b <= 'z', 'A' <= b && b <= 'Z', '0' <= b && b <= '9':
		case (b == '-' || b == '_' || b == '.') && i > 0 && i < len(s)-1:
		default:
			return false
		}
	}
	return true
}

// isToken reports whether s is a token (RFC 9110 §5.6.2).
func isToken(s string) bool {
	for i := range len(s) {
		switch b := s[i]; {
		case 'a' <= b && b <= 'z', 'A' <= b && b <= 'Z', '0' <= b && b <= '9', strings.IndexByte("!#$%&'*+-.^_`|~", b) >= 0:
		default:
			return false
		}
	}
	return s != ""
}

// isFieldValue reports whether s is a value of a header (RFC 9110 §5.5).
func isFieldValue(s string) bool {
	for i := range len(s) {
		if b := s[i]; b < ' ' && b != '\t' || b == 0x7f {
			return false
		}
	}
	return true
}

// isMetadata reports whether s is a value of gRPC's metadata (ASCII-Value, https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md).
func isMetadata(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' })
}

func isPrintable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
}

// isReserved reports whether a header is the coordinator's, or the connection's (RFC 9110 §7.6.1, RFC 9113 §8.2.2).
func isReserved(name string) bool {
	name = strings.ToLower(name)
	switch name {
	case "idempotency-key", "traceparent", "tracestate", "host", "content-length", "transfer-encoding", "connection",
		"keep-alive", "te", "trailer", "trailers", "upgrade", "expect", "http2-settings":
		return true
	}
	return strings.HasPrefix(name, "proxy-") || strings.HasPrefix(name, "saga-") || strings.HasPrefix(name, "fairlead-") || strings.HasPrefix(name, "grpc-") || strings.HasPrefix(name, ":")
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// ParseDefinition reads a definition from JSON, strictly: a field that there is not, or that is given twice, is an error that names it. It does not
// Check what it read.
func ParseDefinition(b []byte) (*Definition, error) {
	if len(b) > MaxDefinitionBytes {
		return nil, fmt.Errorf("the definition has %d bytes, of at most %d", len(b), MaxDefinitionBytes)
	}
	d := new(Definition)
	if err := exactjson.Unmarshal(b, d); err != nil {
		return nil, err
	}
	return d, nil
}
