package conformance_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/internal/freeport"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/http1/http1test"
)

// The corpus lies in testdata/responses, in the form of http1test's tables: h1-*.txt are bytes, h2-*.txt
// are fields and frames (see h2Host.frames). "<each 00-1f,7f>" is as in the corpus of requests;
// "<ends>" is the end of the host's connection, without which it stays. The verdict has a line for each message that
// the client got: the status, fields and body of one that was passed on, "refused" with status and
// fairlead-reason, or "broken off". It may differ with the client's version of HTTP and with the number of
// sidecars, which then are before it. Of a row whose name begins with "cut: ", all beginnings are
// sent. Of such a row, and of one whose name begins with "flood: ", each line of the verdict is all that
// may come.

const theEnd = "<ends>"

// switching is what a row answers with "to UPGRADE": a request to switch to "chat".
const switching = "UPGRADE"

// hostileRoad is what lies between clients and a hostile host.
type hostileRoad struct {
	name     string
	host     *hostile
	port     int
	canaries int // that were answered behind an attack, on its connection
}

// isSidecar makes the host of a bootstrap file another sidecar, whose word is believed.
const isSidecar = `}}}, metadata: {typed_filter_metadata: {fairlead.endpoint.v1: {"@type": type.googleapis.com/mesh.v1.EndpointExtension, instance: app-1, sidecar: true}}}}]}]`

// hostileRoads returns those to a host of a version of HTTP: one sidecar, and two.
func hostileRoads(t *testing.T, bin string, version2 bool) []*hostileRoad {
	t.Helper()
	protocol := ""
	if version2 {
		protocol = overHTTP2
	}
	one := &hostileRoad{name: "one sidecar", host: newHostile(t, version2)}
	one.port = sidecar(t, bin, protocol, "", one.host.port).port
	two := &hostileRoad{name: "two sidecars", host: newHostile(t, version2)}
	near := sidecar(t, bin, protocol, "", two.host.port)
	s := side{freeport.For(t), freeport.For(t)}
	text := strings.Replace(fmt.Sprintf(bootstrap, s.admin, s.port, "", overHTTP2, near.port), "}}}}]}]", isSidecar, 1)
	path := filepath.Join(t.TempDir(), "bootstrap.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, filepath.Join(bin, "sidecar"), "--bootstrap", path, "--drain-timeout", "1s", "--access-log", "off")
	await(t, s.port)
	two.port = s.port
	return []*hostileRoad{one, two}
}

const exchangeTime = 20 * time.Second

// once sends a request that is answered with an attack, then the canary on the same connection, and another
// client's request. It returns what came of the first; what may never come is an error.
func (r *hostileRoad) once(a attack, version2 bool, method string, other *http.Client) (verdict []string, err error) {
	// One that was there before, on the same connection to the host, where that speaks HTTP/2.
	beside := make(chan error, 1)
	if hold := r.host.version2 && a.p.cuts == nil && a.most < 0; hold {
		arrived := r.host.arm(a, true)
		go func() { beside <- r.ask(other, heldPath) }()
		select {
		case <-arrived:
		case err := <-beside:
			return nil, fmt.Errorf("nobody held it: %w", err)
		}
	} else {
		r.host.arm(a, false)
		beside <- nil
	}
	nc, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", r.port))
	if err != nil {
		return nil, err
	}
	defer func() { _ = nc.Close() }()
	start := time.Now()
	_ = nc.SetDeadline(start.Add(exchangeTime))
	var faults []string
	then := func() { faults = r.host.quiet() }
	var all []strictResponse
	var goesOn bool
	if version2 {
		all, goesOn, err = overStrictHTTP2(nc, method, then)
	} else {
		head := fmt.Sprintf("%s %s HTTP/1.1\r\nHost: a\r\n\r\n", method, attackPath)
		if method == switching {
			head = fmt.Sprintf("GET %s HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n", attackPath)
		}
		all, goesOn, err = overStrictHTTP1(nc, head, method, then)
	}
	if goesOn {
		r.canaries++
	}
	verdict = lines(all)
	if time.Since(start) >= exchangeTime {
		err = errors.New("nothing more comes")
	}
	if len(faults) > 0 {
		err = errors.Join(err, fmt.Errorf("the host finds fault: %q", faults))
	}
	return verdict, errors.Join(err, <-beside, r.ask(other, "/other"))
}

// lines returns what messages say. What comes again and again, nobody counts.
func lines(all []strictResponse) []string {
	var lines []string
	for _, a := range all {
		n, line := len(lines), a.String()
		switch {
		case n >= 8 && lines[n-8] == line && slices.Equal(lines[n-8:n-1], lines[n-7:n]):
			lines = append(lines[:n-8], line+", again and again")
		case n > 0 && lines[n-1] == line+", again and again":
		default:
			lines = append(lines, line)
		}
	}
	return lines
}

// ask sends a request of another client and wants its own answer.
func (r *hostileRoad) ask(c *http.Client, path string) error {
	q, err := http.NewRequest("GET", fmt.Sprintf("http://127.0.0.1:%d%s", r.port, path), nil)
	if err != nil {
		return err
	}
	q.Host = "other"
	a, err := c.Do(q)
	if err != nil {
		return fmt.Errorf("another client: %w", err)
	}
	body, err := io.ReadAll(a.Body)
	_ = a.Body.Close()
	if path == heldPath && a.StatusCode == http.StatusBadGateway && a.Header.Get("Fairlead-Reason") != "" {
		return nil // an attack ends the connection, and its second one that on which this was tried again
	}
	if string(body) != fmt.Sprintf(`GET %s of other, ""`, path) || err != nil {
		return fmt.Errorf("another client, of %s, was answered %d %v %q, %w", path, a.StatusCode, a.Header, body, err)
	}
	return nil
}

// attacks returns in which ways a row is sent.
func attacks(row *http1test.Row, overHTTP2 bool) []attack {
	var all []attack
	for _, lines := range variants(row.Lines) {
		ends := lines[len(lines)-1] == theEnd
		if ends {
			lines = lines[:len(lines)-1]
		}
		n := len(strings.Join(lines, ""))
		if overHTTP2 {
			n += 9 * len(lines) // about: where it is cut is of no account
		}
		if strings.HasPrefix(row.Name, "cut: ") {
			for most := range n {
				all = append(all, attack{lines: lines, most: most, ends: true})
			}
			continue
		}
		whole := attack{lines: lines, most: -1, ends: ends}
		all = append(all, whole)
		if len(variants(row.Lines)) > 1 || strings.HasPrefix(row.Name, "flood: ") {
			continue
		}
		single, halves := whole, whole
		for i := max(1, n-2000); i < n; i++ {
			single.p.cuts = append(single.p.cuts, i)
		}
		halves.p = passing{cuts: []int{n / 2}, pause: time.Millisecond}
		all = append(all, single, halves)
	}
	return all
}

// row sends a row in all ways over all roads, and returns its verdict, and how often it was sent.
func sendRow(t *testing.T, row *http1test.Row, roads []*hostileRoad, overHTTP2 bool, other *http.Client) (verdict []string, sent int) {
	t.Helper()
	method, listed := row.To, strings.HasPrefix(row.Name, "cut: ") || strings.HasPrefix(row.Name, "flood: ")
	if method == "" {
		method = "GET"
	}
	var differ []string
	same := true
	for _, r := range roads {
		for _, version2 := range []bool{false, true} {
			from := map[bool]string{false: "HTTP/1.1", true: "HTTP/2"}[version2] + ", " + r.name
			var first []string
			for i, a := range attacks(row, overHTTP2) {
				got, err := r.once(a, version2, method, other)
				sent++
				if err != nil {
					t.Errorf("%s, %s, way %d: %v, behind %q", row.Name, from, i, err, got)
				}
				got = withoutByte(row, i, got)
				whole := strings.Join(got, ", then ")
				switch {
				case listed:
					if !slices.Contains(row.Verdict, whole) {
						t.Errorf("%s, %s, %d bytes: %q, none of %q", row.Name, from, a.most, whole, row.Verdict)
					}
				case i == 0:
					first = got
				case slices.Equal(got, first):
				case len(variants(row.Lines)) > 1: // what becomes of some of the bytes is not what becomes of others
					if !slices.Contains(first, "or "+whole) {
						first = append(first, "or "+whole)
					}
				default:
					t.Errorf("%s, %s, way %d: %q, not %q", row.Name, from, i, got, first)
				}
			}
			if verdict == nil {
				verdict = first
			}
			same = same && slices.Equal(verdict, first)
			for _, line := range first {
				differ = append(differ, from+": "+line)
			}
		}
	}
	switch {
	case listed:
		return row.Verdict, sent
	case same:
		return verdict, sent
	}
	return differ, sent
}

// withoutByte returns the verdict on the i-th of a row's variants with a star for the byte that
// is another in each.
func withoutByte(row *http1test.Row, i int, verdict []string) []string {
	for n, line := range row.Lines {
		at := each.FindStringIndex(line)
		if at == nil {
			continue
		}
		before, behind := line[at[0]-1:at[0]], line[at[1]:at[1]+1]
		b := escaped(variants(row.Lines)[i][n][at[0] : at[0]+1])
		verdict = slices.Clone(verdict)
		for j, v := range verdict {
			v = strings.ReplaceAll(v, before+b+behind, before+"*"+behind)
			verdict[j] = strings.ReplaceAll(v, strings.ToLower(before+b+behind), strings.ToLower(before+"*"+behind))
		}
	}
	return verdict
}

// TestHostileResponses lets a host answer what no host should, over one sidecar and over two, to clients of
// both versions of HTTP, who take one spelling of everything. Whatever the verdict: each gets one
// well-formed message or a refusal that says why, and nothing of an answer reaches another request, be it
// behind this one or another client's.
func TestHostileResponses(t *testing.T) {
	wanted(t)
	paths, err := filepath.Glob("testdata/responses/*.txt")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no corpus: %v", err)
	}
	bin := build(t, "./cmd/sidecar")
	to1, to2 := hostileRoads(t, bin, false), hostileRoads(t, bin, true)
	rows, sent := 0, 0
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txt"), func(t *testing.T) {
			other := &http.Client{Transport: &http.Transport{}, Timeout: exchangeTime}
			defer other.CloseIdleConnections()
			overHTTP2 := strings.HasPrefix(filepath.Base(path), "h2-")
			roads := to1
			if overHTTP2 {
				roads = to2
			}
			table := http1test.Read(t, path)
			here := 0
			for i := range table {
				row := &table[i]
				if !strings.HasPrefix(row.Rule, "RFC ") {
					t.Errorf("%s: no sentence decides", row.Name)
				}
				got, n := sendRow(t, row, roads, overHTTP2, other)
				here += n
				if *update {
					row.Verdict = got
				} else if !slices.Equal(got, row.Verdict) {
					t.Errorf("%s: %q, not %q", row.Name, got, row.Verdict)
				}
			}
			if *update {
				http1test.Write(t, path, table)
			}
			rows, sent = rows+len(table), sent+here
			t.Logf("%d rows, sent %d times", len(table), here)
		})
	}
	canaries := 0
	for _, r := range append(to1, to2...) {
		canaries += r.canaries
	}
	if canaries < sent/2 {
		t.Errorf("of %d connections only %d went on behind an attack: most are to be used again", sent, canaries)
	}
	t.Logf("%d rows, sent %d times; %d canaries were answered behind them", rows, sent, canaries)
}
