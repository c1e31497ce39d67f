// Package metrics counts and exposes, and is the only package that names the
// Prometheus client.
//
// Two halves. [Registry] is the general one: families whose labels are resolved
// to handles when configuration is read ([CounterVec.With], [HistogramVec.With]),
// and families that are read from live state at each scrape ([Registry.GaugeFunc],
// [Registry.Collect]). Its handles are the Prometheus client's own.
//
// [Proxy] is for the request path: one [Requests] per source and destination,
// kept in the table's entry, whose [Requests.Done] is an index and four atomic
// additions: no lock, no map, no allocation.
//
// Every family has a hard cap on series. What would pass it is counted in a
// series whose label values are "other", so that hostile names cannot grow the
// memory of the proxy or of the Prometheus server, and sums stay right.
//
// Names follow the Prometheus conventions (base units, _total) with the prefix
// fairlead_. The package has no goroutines.
package metrics
