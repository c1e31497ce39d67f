package meshctl

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
	"sigs.k8s.io/yaml"

	meshv1 "github.com/fairlead-mesh/fairlead/api/proto/mesh/v1"
)

// The formats of --output.
const (
	table  = "table"
	asJSON = "json"
	asYAML = "yaml"
)

// show writes an answer in the format that was asked for.
func (c *client) show(m proto.Message, rows func() [][]string) error {
	if c.format == table {
		return writeTable(c.out, rows())
	}
	return c.document(m)
}

// document writes a message as JSON, or as a YAML document.
func (c *client) document(m proto.Message) error {
	b, err := protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(m)
	if err != nil {
		return err
	}
	// protojson varies its spaces on purpose.
	var steady bytes.Buffer
	if err := json.Compact(&steady, b); err != nil {
		return err
	}
	if c.format == asJSON {
		_, err = fmt.Fprintln(c.out, steady.String())
		return err
	}
	y, err := yaml.JSONToYAML(steady.Bytes())
	if err == nil {
		_, err = fmt.Fprintf(c.out, "---\n%s", y)
	}
	return err
}

func writeTable(out io.Writer, rows [][]string) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		for i, cell := range row {
			row[i] = plain(cell)
		}
		if _, err := fmt.Fprintln(w, strings.TrimRight(strings.Join(row, "\t"), "\t")); err != nil {
			return err
		}
	}
	return w.Flush()
}

// plain quotes text that would do more to a terminal than be seen. Bytes that are
// no UTF-8 are such: 0x9b alone begins a control sequence (ECMA-48 §5.3).
func plain(s string) string {
	if !utf8.ValidString(s) {
		return strconv.QuoteToGraphic(s)
	}
	for _, r := range s {
		if !strconv.IsPrint(r) {
			return strconv.QuoteToGraphic(s)
		}
	}
	return s
}

func serviceRows(services []*meshv1.Service) [][]string {
	rows := [][]string{{"NAME", "NAMESPACE", "PORTS", "INSTANCES", "USABLE", "HELD"}}
	for _, s := range services {
		rows = append(rows, []string{s.GetName(), s.GetNamespace(), portsOf(s.GetPorts()),
			strconv.Itoa(int(s.GetInstances())), strconv.Itoa(int(s.GetUsableInstances())), strconv.Itoa(int(s.GetHeldInstances()))})
	}
	return rows
}

func instanceRows(instances []*meshv1.Instance, now time.Time) [][]string {
	rows := [][]string{{"SERVICE", "ID", "ADDRESS", "PORTS", "STATUS", "WEIGHT", "ZONE", "LIVES BY", "AGE", "LABELS"}}
	for _, i := range instances {
		rows = append(rows, []string{
			i.GetService() + "." + i.GetNamespace(), i.GetId(), addressOf(i), portsOf(i.GetPorts()), statusOf(i),
			strconv.Itoa(int(i.GetWeight())), i.GetZone(), livesBy(i), age(i.GetRegisteredAt(), now), labelsOf(i.GetLabels()),
		})
	}
	return rows
}

func livesBy(i *meshv1.Instance) string {
	switch i.GetLiveness() {
	case meshv1.Liveness_STREAM:
		return "sidecar"
	case meshv1.Liveness_TTL:
		return "ttl " + i.GetTtl().AsDuration().String()
	case meshv1.Liveness_LEASE:
		return "lease"
	case meshv1.Liveness_UNTIL_REMOVED:
		return "until removed"
	default:
		return "-"
	}
}

// heldRows lists the instances that are lost and that data planes keep.
func heldRows(held []*meshv1.HeldInstance, now time.Time) [][]string {
	rows := [][]string{{"LOST, BUT HELD", "ID", "ADDRESS", "LOST", "HELD FOR"}}
	for _, h := range held {
		i := h.GetInstance()
		left := max(h.GetHeldUntil().AsTime().Sub(now), 0).Round(time.Second)
		rows = append(rows, []string{i.GetService() + "." + i.GetNamespace(), i.GetId(), addressOf(i), age(h.GetLostAt(), now) + " ago", left.String() + " more"})
	}
	return rows
}

// sidecarRows has, for each type of resource, a column of how many each sidecar
// subscribed to, applied and refused. Types that only a newer control plane knows
// come last.
func sidecarRows(sidecars []*meshv1.Sidecar, now time.Time) [][]string {
	const envoy = "type.googleapis.com/envoy.config."
	types := []string{
		envoy + "listener.v3.Listener", envoy + "route.v3.RouteConfiguration",
		envoy + "cluster.v3.Cluster", envoy + "endpoint.v3.ClusterLoadAssignment",
	}
	for _, s := range sidecars {
		for _, t := range s.GetTypes() {
			if !slices.Contains(types, t.GetTypeUrl()) {
				types = append(types, t.GetTypeUrl())
			}
		}
	}
	header := []string{"NODE", "SERVICE", "CONNECTED", "ADDRESS", "AGENT"}
	for _, t := range types {
		header = append(header, columnOf(kindOf(t)))
	}
	rows := [][]string{header}
	for _, s := range sidecars {
		row := []string{s.GetNode(), s.GetService(), age(s.GetConnectedAt(), now), s.GetAddress(), s.GetUserAgent()}
		for _, t := range types {
			row = append(row, countsOf(s, t))
		}
		rows = append(rows, row)
	}
	return rows
}

func countsOf(s *meshv1.Sidecar, typeURL string) string {
	for _, t := range s.GetTypes() {
		if t.GetTypeUrl() == typeURL {
			return fmt.Sprintf("%d/%d/%d", t.GetSubscribed(), len(t.GetApplied()), len(t.GetRejected()))
		}
	}
	return "-"
}

// kindOf is the last part of a type URL.
func kindOf(typeURL string) string { return typeURL[strings.LastIndexByte(typeURL, '.')+1:] }

// columnOf names a kind of resource as people do; one that is not known, as it is.
func columnOf(kind string) string {
	switch kind {
	case "Listener":
		return "LISTENERS"
	case "RouteConfiguration":
		return "ROUTES"
	case "Cluster":
		return "CLUSTERS"
	case "ClusterLoadAssignment":
		return "ENDPOINTS"
	default:
		return kind
	}
}

// refusedRows lists what sidecars refused; the header alone if that is nothing.
func refusedRows(sidecars []*meshv1.Sidecar, now time.Time) [][]string {
	rows := [][]string{{"REFUSED BY", "TYPE", "RESOURCE", "SINCE", "REASON"}}
	for _, s := range sidecars {
		for _, t := range s.GetTypes() {
			for _, r := range t.GetRejected() {
				rows = append(rows, []string{s.GetNode(), kindOf(t.GetTypeUrl()), r.GetName(), age(r.GetAt(), now), r.GetReason()})
			}
		}
	}
	return rows
}

func addressOf(i *meshv1.Instance) string {
	if i.GetInboundPort() != 0 {
		return net.JoinHostPort(i.GetAddress(), strconv.Itoa(int(i.GetInboundPort())))
	}
	return i.GetAddress()
}

func statusOf(i *meshv1.Instance) string {
	if i.GetStatus() == meshv1.Status_STATUS_UNSPECIFIED {
		return "UNCHECKED"
	}
	return i.GetStatus().String()
}

func portsOf(ports []*meshv1.Port) string {
	var all []string
	for _, p := range ports {
		all = append(all, fmt.Sprintf("%s:%d/%s", p.GetName(), p.GetNumber(), p.GetProtocol()))
	}
	return strings.Join(all, ",")
}

func labelsOf(labels map[string]string) string {
	var all []string
	for k, v := range labels {
		all = append(all, k+"="+v)
	}
	slices.Sort(all)
	return strings.Join(all, ",")
}

// age says how long ago something was, in its largest unit.
func age(at *timestamppb.Timestamp, now time.Time) string {
	if at == nil {
		return "-"
	}
	d := max(now.Sub(at.AsTime()), 0)
	switch {
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm", d/time.Minute)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", d/time.Hour)
	default:
		return fmt.Sprintf("%dd", d/(24*time.Hour))
	}
}
