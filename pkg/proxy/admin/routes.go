package admin

import (
	"bytes"
	"fmt"
	"html"
	"net/http"
	"net/http/pprof"
)

const (
	get  = http.MethodGet // serves HEAD too
	post = http.MethodPost
)

// route is a line of the table that the port, its index and its help are made
// from.
type route struct {
	Method, Path string
	Query        string // what may follow the path
	Help         string
	handle       http.HandlerFunc
}

func (s *Server) table() []route {
	// Importing net/http/pprof also adds it to http.DefaultServeMux, which
	// nothing serves.
	return []route{
		{get, "/ready", "", "200 if the proxy can do its work, else 503 and what it waits for", s.config.Ready.ServeHTTP},
		{get, "/stats", "?filter=REGEXP&format=json|prometheus", "all metrics, or those whose name has a match", s.stats},
		{get, "/stats/prometheus", "", "all metrics in the format of Prometheus", s.config.Metrics.Handler().ServeHTTP},
		{get, "/metrics", "", "the same as /stats/prometheus", s.config.Metrics.Handler().ServeHTTP},
		{get, "/clusters", "?format=json", "clusters and their hosts: health, load, breakers", s.clusters},
		{get, "/listeners", "?format=json", "listeners and how many connections are open", s.listeners},
		{get, "/config_dump", "", "the configuration in force, as JSON", s.configDump},
		{get, "/certs", "", "the certificates in use, as JSON", s.certs},
		{get, "/logging", "?format=json", "the lowest level that is logged", s.logging},
		{post, "/logging", "?level=debug|info|warn|error", "change the level until the next start", s.setLogging},
		{get, "/drain", "?format=json", "whether the proxy is draining", s.drain},
		{post, "/drain", "", "begin to drain: leave the mesh, finish requests, take no new ones", s.beginDrain},
		{get, "/debug/pprof/", "", "profiles of the process", pprof.Index},
		{get, "/debug/pprof/cmdline", "", "the command line", pprof.Cmdline},
		{get, "/debug/pprof/profile", "?seconds=N", "processor profile, of 30 seconds by default", pprof.Profile},
		{get, "/debug/pprof/symbol", "", "names of program counters", pprof.Symbol},
		{post, "/debug/pprof/symbol", "", "the same, for many of them", pprof.Symbol},
		{get, "/debug/pprof/trace", "?seconds=N", "execution trace, of 1 second by default", pprof.Trace},
	}
}

func (s *Server) routes() http.Handler {
	table := s.table()
	mux := http.NewServeMux()
	// With the methods in the patterns, the mux answers others with 405 and Allow.
	for _, r := range table {
		mux.HandleFunc(r.Method+" "+r.Path, r.handle)
	}
	mux.HandleFunc(get+" /help", constant("text/plain; charset=utf-8", help(table)))
	mux.HandleFunc(get+" /{$}", constant("text/html; charset=utf-8", index(table)))
	return mux
}

func constant(contentType string, body []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		_, _ = w.Write(body) // the client went away: nobody to tell
	}
}

func help(table []route) []byte {
	var b bytes.Buffer
	for _, r := range table {
		fmt.Fprintf(&b, "%-4s %s%s\n         %s\n", r.Method, r.Path, r.Query, r.Help)
	}
	return b.Bytes()
}

// The page is put together by hand: html/template calls methods by their names, and in a
// program that does so the linker keeps every method of every type. Here that is megabytes.
const (
	indexHead = `<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Fairlead admin</title>
<style>body{font-family:sans-serif;margin:2em} td{padding:.2em 1.5em .2em 0} form{margin:0}</style>
</head>
<body>
<h1>Fairlead admin</h1>
<table>
`
	indexTail = `</table>
</body>
</html>
`
)

func index(table []route) []byte {
	var b bytes.Buffer
	b.WriteString(indexHead)
	for _, r := range table {
		path := html.EscapeString(r.Path)
		what := r.Method + " " + path
		switch {
		case r.Method == get:
			what = `<a href="` + path + `">` + path + `</a>`
		case r.Path == "/drain":
			what = `<form method="post" action="/drain"><button>POST /drain</button></form>`
		}
		fmt.Fprintf(&b, "<tr><td>%s</td><td>%s</td><td>%s</td></tr>\n",
			what, html.EscapeString(r.Query), html.EscapeString(r.Help))
	}
	b.WriteString(indexTail)
	return b.Bytes()
}
