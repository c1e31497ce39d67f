package wire

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
)

// head makes a head of field lines such as "X: 1".
func head(lines ...string) *Head {
	var h Head
	h.Reset()
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ":")
		h.Fields = append(h.Fields, Field{Name: []byte(name), Value: Trim([]byte(value)), ID: Lookup([]byte(name))})
	}
	return &h
}

// lines are a head's fields in one string.
func lines(h *Head) string {
	var all []string
	for _, f := range h.Fields {
		all = append(all, string(f.Name)+":"+string(f.Value))
	}
	return strings.Join(all, "|")
}

func TestResetEmptiesAndKeepsMemory(t *testing.T) {
	h := head("X: 1", "Host: a")
	h.Method, h.Authority, h.Path, h.Reason, h.Scheme = []byte("GET"), []byte("a"), []byte("/"), []byte("OK"), []byte("https")
	h.Status, h.Proto, h.ContentLength = 200, HTTP2, 5
	h.Streamed, h.Close, h.ExpectContinue = true, true, true
	h.Add(Other, "Y", []byte("2"))
	room := cap(h.Fields)
	h.Reset()
	if got := fmt.Sprintf("%q%q%q%q%q %d %s %d %t%t%t %d", h.Method, h.Authority, h.Path, h.Reason, h.Scheme,
		h.Status, h.Proto, h.ContentLength, h.Streamed, h.Close, h.ExpectContinue, len(h.Fields)); got != `"""""""""" 0 HTTP/1.1 -1 falsefalsefalse 0` {
		t.Error(got)
	}
	if cap(h.Fields) != room || cap(h.arena) == 0 {
		t.Errorf("room for %d fields, was %d; arena of %d", cap(h.Fields), room, cap(h.arena))
	}
}

func TestGetIsTheFirstAndTellsEmptyFromMissing(t *testing.T) {
	h := head("Accept: 1", "accept: 2", "TE:")
	if got := h.Get(Accept); string(got) != "1" {
		t.Errorf("the first is %q", got)
	}
	if got := h.Get(TE); got == nil || len(got) != 0 {
		t.Errorf("an empty one is %#v", got)
	}
	if got := h.Get(Host); got != nil {
		t.Errorf("a missing one is %q", got)
	}
}

func TestDelRemovesAllAndKeepsTheOrderOfOthers(t *testing.T) {
	for _, c := range []struct{ before, after string }{
		{"", ""},
		{"TE:1", ""},
		{"TE:1|te:2", ""},
		{"A:1|B:2", "A:1|B:2"},
		{"TE:1|A:1|Te:2|B:2|TE:3", "A:1|B:2"},
		{"A:1|TE:1|TE:2|B:2", "A:1|B:2"},
	} {
		h := parsed(c.before)
		if h.Del(TE); lines(h) != c.after {
			t.Errorf("%q: %q, want %q", c.before, lines(h), c.after)
		}
	}
}

func TestSetReplacesTheFirstAndRemovesFurtherOnes(t *testing.T) {
	for _, c := range []struct{ before, value, after string }{
		{"", "x", "Host:x"},
		{"A:1", "x", "A:1|Host:x"},
		{"hOsT:a|A:1", "x", "hOsT:x|A:1"},
		{"A:1|HOST:a|B:2|Host:b|C:3|host:c", "x", "A:1|HOST:x|B:2|C:3"},
		{"Host:a|Host:b|Host:c", "x", "Host:x"},
		{"Host:a", "", "Host:"},
		{"A:1", "", "A:1|Host:"},
	} {
		h := parsed(c.before)
		h.Set(Host, "Host", []byte(c.value))
		if lines(h) != c.after {
			t.Errorf("%q: %q, want %q", c.before, lines(h), c.after)
		}
		if h.Get(Host) == nil {
			t.Errorf("%q: what was set to %q is missing", c.before, c.value)
		}
	}
}

// parsed is the head of which lines is the text.
func parsed(text string) *Head {
	if text == "" {
		return head()
	}
	return head(strings.Split(text, "|")...)
}

func TestAddedFieldsAreCopiesThatOutliveTheArenasGrowth(t *testing.T) {
	h := head()
	value := []byte("v-000")
	var want []string
	for i := range 200 {
		copy(value[2:], fmt.Sprintf("%03d", i))
		h.Add(Other, fmt.Sprintf("n-%03d", i), value)
		want = append(want, fmt.Sprintf("n-%03d:v-%03d", i, i))
	}
	copy(value, "_____")
	if got := lines(h); got != strings.Join(want, "|") {
		t.Errorf("%q", got)
	}
}

func TestAppendingToAFieldDoesNotReachItsNeighbour(t *testing.T) {
	h := head()
	h.Add(Other, "A", []byte("1"))
	h.Add(Other, "B", []byte("2"))
	_ = append(h.Fields[0].Name, "___"...)
	_ = append(h.Fields[0].Value, "___"...)
	h.Set(Host, "Host", []byte("a"))
	_ = append(h.Fields[1].Value, "___"...)
	if got := lines(h); got != "A:1|B:2|Host:a" {
		t.Errorf("%q", got)
	}
}

func TestDecodedFieldsAreCopiedAndKnownByName(t *testing.T) {
	h := head()
	name, value := []byte("cookie"), []byte("a=b")
	h.AddDecoded(name, value, Lookup(name), true)
	h.AddDecoded([]byte("x-other"), nil, Other, false)
	h.Method = h.Own(value)
	copy(name, "______")
	copy(value, "___")
	if got := lines(h); got != "cookie:a=b|x-other:" || string(h.Method) != "a=b" {
		t.Errorf("%q, %q", got, h.Method)
	}
	if string(h.Get(Cookie)) != "a=b" || h.Fields[1].ID != Other || h.Fields[1].Value == nil {
		t.Errorf("%+v", h.Fields)
	}
	_ = append(h.Fields[0].Name, '_')
	_ = append(h.Fields[0].Value, '_')
	if got := lines(h); got != "cookie:a=b|x-other:" {
		t.Errorf("appending to one field made %q", got)
	}
}

func TestALargeHeadLeavesNoLargeArenaBehind(t *testing.T) {
	h := head()
	for range 17 {
		h.AddDecoded([]byte("x"), make([]byte, 1<<10), Other, false)
	}
	if h.Reset(); cap(h.arena) > maxArena {
		t.Errorf("an empty head keeps %d bytes", cap(h.arena))
	}
}

// What a peer makes of a head's memory by how it cuts it into fields is not more than twice
// what it sends.
func TestALargeHeadTakesNoMoreThanTwiceItsSize(t *testing.T) {
	for _, size := range []int{10, 100, 1000, 3000, 15_000} {
		const total = 60_000
		value := make([]byte, size)
		h := head()
		h.Fields = make([]Field, 0, total/size)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		for range total / size {
			h.AddDecoded(nil, value, Other, false)
		}
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > 2*total+8<<10 {
			t.Errorf("fields of %d bytes, %d in all, take %d", size, total, n)
		}
	}
}

// The arena that is left of a head serves the next ones like it.
func TestAHeadLikeTheLastAllocatesNothing(t *testing.T) {
	for _, total := range []int{100, 1000, 5000, 15_000} {
		h, value := head(), make([]byte, 50)
		build := func() {
			h.Reset()
			for range total / 50 {
				h.AddDecoded(nil, value, Other, false)
			}
			h.Add(Host, "", value)
			h.Set(Host, "", value)
		}
		for range 10 {
			build()
		}
		if n := testing.AllocsPerRun(100, build); n > 0 {
			t.Errorf("a head of %d bytes: %v allocations", total, n)
		}
	}
}

func TestAJoinThatDoesNotFitLeavesTheOtherFieldsAsTheyAre(t *testing.T) {
	h := head()
	part := strings.Repeat("c", 100)
	for range 3 {
		h.AddDecoded([]byte("cookie"), []byte(part), Cookie, false)
		h.AddDecoded([]byte("x"), []byte("y"), Other, false)
	}
	h.Join(Cookie, "; ")
	if got, want := lines(h), "cookie:"+part+"; "+part+"; "+part+"|x:y|x:y|x:y"; got != want {
		t.Errorf("%q", got)
	}
}

func TestProtocolsByName(t *testing.T) {
	for p, want := range map[Proto][2]string{HTTP10: {"HTTP/1.0", "1.0"}, HTTP11: {"HTTP/1.1", "1.1"}, HTTP2: {"HTTP/2", "2"}} {
		if got := [2]string{p.String(), p.Version()}; got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestErrorSaysItsText(t *testing.T) {
	var err error = &Error{Status: 400, Text: "a line ends with LF alone"}
	if err.Error() != "a line ends with LF alone" {
		t.Error(err)
	}
}

func TestWhatRunsPerRequestAllocatesNothing(t *testing.T) {
	from := head("Host: orders", "Connection: keep-alive, X-Gone", "X-Gone: 1", "TE: trailers", "Accept: */*",
		"User-Agent: test", "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "X: 1", "Host: b")
	value := []byte("00-0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7-01")
	var h Head
	if n := testing.AllocsPerRun(1000, func() {
		h.Reset()
		for i := range from.Fields {
			f := from.Fields[i]
			f.ID = Lookup(f.Name)
			h.Fields = append(h.Fields, f)
		}
		RemoveHopByHop(&h)
		h.Set(Host, "Host", h.Get(Host))
		h.Set(Traceparent, "traceparent", value)
		h.Add(Other, "Fairlead-Test", value)
		h.Del(Accept)
		if !HasElement(from.Fields[1].Value, "x-gone") || len(h.Fields) != 6 {
			t.Fatal(lines(&h))
		}
	}); n != 0 {
		t.Errorf("%v allocations per head", n)
	}
}

func TestExtendPutsAValueBehindAllThereAre(t *testing.T) {
	for _, test := range []struct {
		values []string
		want   string
	}{
		{nil, "c"},
		{[]string{""}, "c"},
		{[]string{"a"}, "a,c"},
		{[]string{"a", "b, b"}, "a,b, b,c"},
	} {
		var h Head
		h.Add(Other, "other", []byte("x"))
		for _, v := range test.values {
			h.Add(XForwardedFor, "X-Forwarded-For", []byte(v))
		}
		h.Extend(XForwardedFor, "x-forwarded-for", ",", []byte("c"))
		if got := h.Get(XForwardedFor); string(got) != test.want || len(h.Fields) != 2 {
			t.Errorf("%q becomes %q of %d fields, want %q", test.values, got, len(h.Fields), test.want)
		}
	}
}

func TestFieldsAreTakenOutByName(t *testing.T) {
	var h Head
	for _, name := range []string{"a", "b", "c", "b"} {
		h.Add(Other, name, []byte("v"))
	}
	h.DelFunc(func(f *Field) bool { return string(f.Name) == "b" })
	if len(h.Fields) != 2 || string(h.Fields[0].Name) != "a" || string(h.Fields[1].Name) != "c" {
		t.Errorf("%v", h.Fields)
	}
}
