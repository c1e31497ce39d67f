// Package accesslog writes one line per request without making the request wait.
//
// [Log.Record] copies an [Entry] into a slot of a preallocated ring; the log's
// one goroutine encodes the slots as JSON or text and writes them in batches.
// A full ring drops the entry and counts it ([Log.Dropped]): a slow disk or
// terminal costs log lines, never latency or memory. [Log.Close] ends the
// goroutine after it has drained the ring, within the caller's bound.
//
// Request bytes are hostile. JSON lines are valid JSON (RFC 8259) whatever the
// bytes are, invalid UTF-8 becoming U+FFFD; text lines quote what a client
// chose, so that no request can forge a line or an escape sequence.
//
// It is not a metrics source and keeps no request bodies or headers beyond
// those of [Entry].
package accesslog
