package metrics

import (
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Proxy is the bundle of families about proxied requests:
//
//	fairlead_requests_total            source destination code reason
//	fairlead_request_duration_seconds  source destination code reason  (histogram)
//	fairlead_request_bytes_total       source destination code reason
//	fairlead_response_bytes_total      source destination code reason
//	fairlead_requests_in_flight        source destination
//	fairlead_grpc_calls_total          source destination grpc_status
//
// code is "0" where no response was sent. It is safe for concurrent use.
type Proxy struct {
	reasons  []string
	statuses []string // of gRPC
	descs    proxyDescs

	maxSeries int
	maxPairs  int
	overflow  *series // of what passes maxSeries; all its label values are "other"

	mu     sync.Mutex
	pairs  map[pair]*Requests // guarded by mu
	series int                // guarded by mu; series of all pairs
	calls  int                // guarded by mu; series of the calls of all pairs

	overflowCalls *atomic.Uint64 // of what passes maxSeries

	others     *Requests // of the pairs past maxPairs; its labels are "other"
	overflowed bool      // guarded by mu; somebody has others
}

type pair struct{ source, destination string }

type proxyDescs struct{ requests, duration, requestBytes, responseBytes, inFlight, calls *prometheus.Desc }

// NewProxy makes the families. reasons names the reason codes by index; index 0
// is that of a response which an instance sent, "none" by convention.
//
// Half of the registry's cap on series bounds the pairs of source and
// destination, so that a pair that came early has room for its codes.
func NewProxy(r *Registry, reasons []string) *Proxy {
	byCode := []string{"source", "destination", "code", "reason"}
	desc := func(name, help string, labels []string) *prometheus.Desc {
		return prometheus.NewDesc(Prefix+name, help, labels, nil)
	}
	p := &Proxy{
		reasons: labelValues(reasons),
		descs: proxyDescs{
			requests:      desc("requests_total", "Requests that ended.", byCode),
			duration:      desc("request_duration_seconds", "Time from a request's first byte to its response's last.", byCode),
			requestBytes:  desc("request_bytes_total", "Bytes of request bodies.", byCode),
			responseBytes: desc("response_bytes_total", "Bytes of response bodies.", byCode),
			inFlight:      desc("requests_in_flight", "Requests that have begun and not ended.", byCode[:2]),
			calls:         desc("grpc_calls_total", "gRPC calls that ended, by what their trailers said.", []string{"source", "destination", "grpc_status"}),
		},
		maxSeries: r.maxSeries,
		maxPairs:  max(r.maxSeries/2, 1),
		overflow:  new(series),
		pairs:     map[pair]*Requests{},

		overflowCalls: new(atomic.Uint64),
	}
	p.others = p.newRequests(pair{Other, Other})
	r.prometheus.MustRegister(p)
	return p
}

func (p *Proxy) newRequests(key pair) *Requests {
	return &Requests{
		proxy:       p,
		source:      key.source,
		destination: key.destination,
		pages:       make([]atomic.Pointer[page], len(p.reasons)*classes),
		calls:       make([]atomic.Pointer[atomic.Uint64], len(p.statuses)),
	}
}

// GRPC lets calls be counted by their status, of which it gives the names by number. It is
// called before the first Destination.
func (p *Proxy) GRPC(statuses []string) *Proxy {
	p.statuses = labelValues(statuses)
	p.others = p.newRequests(pair{Other, Other})
	return p
}

// Destination returns the handles of a pair, always the same ones until
// [Proxy.Remove], or those of "other" when there are too many pairs. It takes a
// lock: call it when configuration changes and keep the handles.
func (p *Proxy) Destination(source, destination string) *Requests {
	key := pair{labelValue(source), labelValue(destination)}
	p.mu.Lock()
	defer p.mu.Unlock()
	if r, ok := p.pairs[key]; ok {
		return r
	}
	if len(p.pairs) >= p.maxPairs || key == (pair{Other, Other}) {
		p.overflowed = true
		return p.others
	}
	r := p.newRequests(key)
	p.pairs[key] = r
	return r
}

// Remove takes a pair's series out of the families and makes room for another.
// Its handles stay usable by the requests in flight.
func (p *Proxy) Remove(source, destination string) {
	key := pair{labelValue(source), labelValue(destination)}
	p.mu.Lock()
	defer p.mu.Unlock()
	r, ok := p.pairs[key]
	if !ok {
		return
	}
	r.each(func(int, int, *series) { p.series-- })
	r.eachCall(func(int, *atomic.Uint64) { p.calls-- })
	delete(p.pairs, key)
}

// resolve finds or makes the series of a code and reason: the slow path of the
// first request of its kind.
func (p *Proxy) resolve(r *Requests, code, reason int) *series {
	p.mu.Lock()
	defer p.mu.Unlock()
	listed := r == p.others || p.pairs[pair{r.source, r.destination}] == r
	if !listed {
		return p.overflow // removed: its last requests are still counted somewhere
	}
	at := &r.pages[reason*classes+code/classCodes]
	pg := at.Load()
	if pg == nil {
		pg = new(page)
		at.Store(pg)
	}
	slot := &pg[code%classCodes]
	s := slot.Load()
	switch {
	case s != nil: // another goroutine was faster
	case p.series < p.maxSeries:
		s = new(series)
		p.series++
		slot.Store(s)
	default:
		s = p.overflow
		slot.Store(s)
	}
	return s
}

// resolveCall finds or makes the series of a status: the slow path of the first call of
// its kind.
func (p *Proxy) resolveCall(r *Requests, status int) *atomic.Uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	listed := r == p.others || p.pairs[pair{r.source, r.destination}] == r
	if !listed {
		return p.overflowCalls
	}
	n := r.calls[status].Load()
	switch {
	case n != nil: // another goroutine was faster
	case p.calls < p.maxSeries:
		n = new(atomic.Uint64)
		p.calls++
		r.calls[status].Store(n)
	default:
		n = p.overflowCalls
		r.calls[status].Store(n)
	}
	return n
}

// eachCall calls f for every series of calls of its own that r has.
func (r *Requests) eachCall(f func(status int, n *atomic.Uint64)) {
	for status := range r.calls {
		if n := r.calls[status].Load(); n != nil && n != r.proxy.overflowCalls {
			f(status, n)
		}
	}
}

// each calls f for every series of its own that r has.
func (r *Requests) each(f func(code, reason int, s *series)) {
	for i := range r.pages {
		pg := r.pages[i].Load()
		if pg == nil {
			continue
		}
		for j := range pg {
			if s := pg[j].Load(); s != nil && s != r.proxy.overflow {
				f(i%classes*classCodes+j, i/classes, s)
			}
		}
	}
}

// Describe implements [prometheus.Collector].
func (p *Proxy) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		p.descs.requests, p.descs.duration, p.descs.requestBytes, p.descs.responseBytes, p.descs.inFlight, p.descs.calls,
	} {
		ch <- d
	}
}

// Collect implements [prometheus.Collector].
func (p *Proxy) Collect(ch chan<- prometheus.Metric) {
	for _, r := range p.listed() {
		ch <- prometheus.MustNewConstMetric(p.descs.inFlight, prometheus.GaugeValue,
			float64(r.inFlight.Load()), r.source, r.destination)
		r.each(func(code, reason int, s *series) {
			p.collect(ch, s, r.source, r.destination, strconv.Itoa(code), p.reasons[reason])
		})
		r.eachCall(func(status int, n *atomic.Uint64) {
			ch <- prometheus.MustNewConstMetric(p.descs.calls, prometheus.CounterValue,
				float64(n.Load()), r.source, r.destination, p.statuses[status])
		})
	}
	p.collect(ch, p.overflow, others(4)...)
	if n := p.overflowCalls.Load(); n > 0 {
		ch <- prometheus.MustNewConstMetric(p.descs.calls, prometheus.CounterValue, float64(n), others(3)...)
	}
}

// listed copies the pairs, so that no lock is held while a scrape is read.
func (p *Proxy) listed() []*Requests {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make([]*Requests, 0, len(p.pairs)+1)
	for _, r := range p.pairs {
		all = append(all, r)
	}
	if p.overflowed {
		all = append(all, p.others)
	}
	return all
}

func (p *Proxy) collect(ch chan<- prometheus.Metric, s *series, labels ...string) {
	bounds := DurationBuckets()
	cumulative := make(map[float64]uint64, len(bounds))
	var count uint64
	for i := range s.buckets {
		count += s.buckets[i].Load()
		if i < len(bounds) {
			cumulative[bounds[i]] = count
		}
	}
	if count == 0 {
		return
	}
	sum := time.Duration(s.nanoseconds.Load()).Seconds() //nolint:gosec // 292 years of requests
	ch <- prometheus.MustNewConstHistogram(p.descs.duration, count, sum, cumulative, labels...)
	counter := func(d *prometheus.Desc, v uint64) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	counter(p.descs.requests, count)
	counter(p.descs.requestBytes, s.requestBytes.Load())
	counter(p.descs.responseBytes, s.responseBytes.Load())
}
