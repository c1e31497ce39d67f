package sidecar_test

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/fairlead-mesh/fairlead/pkg/flags"
	"github.com/fairlead-mesh/fairlead/pkg/sidecar"
)

// execute runs a command line of the sidecar, which stops at once if it starts.
func execute(t *testing.T, args ...string) (code int, told string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out bytes.Buffer
	command := sidecar.Command()
	command.SetArgs(args)
	command.SetOut(&out)
	command.SetErr(&out)
	command.SetContext(ctx)
	code = flags.Execute(command)
	return code, out.String()
}

func TestFaultyCommandLineIsAMisuseAndNamesTheFlag(t *testing.T) {
	long := strings.Repeat("x", 256)
	calls := []string{"--control-plane", "127.0.0.1:1", "--outbound-addr", "127.0.0.1:0", "--admin-addr", "127.0.0.1:0"}
	serves := slices.Concat(calls, []string{"--service", "orders", "--app-addr", "127.0.0.1:1"})
	var many []string
	for i := range 65 {
		many = append(many, fmt.Sprintf("k%d=v", i))
	}
	for name, c := range map[string]struct {
		base, more []string
		want       []string
	}{
		"neither mesh nor file":           {nil, nil, []string{"either --control-plane (host:port) or --bootstrap (a file) is required"}},
		"both mesh and file":              {calls, []string{"--bootstrap", "f"}, []string{"--control-plane and --bootstrap exclude each other"}},
		"a URL for an address":            {calls, []string{"--control-plane", "http://a:1"}, []string{`--control-plane "http://a:1": is a URL`}},
		"application without a name":      {calls, []string{"--app-addr", "127.0.0.1:1"}, []string{"--app-addr needs --service"}},
		"service":                         {calls, []string{"--service", "Orders"}, []string{`--service: service name "Orders": must consist of`}},
		"namespace":                       {serves, []string{"--namespace", "a.b"}, []string{`--namespace "a.b": must consist of`}},
		"namespace of a caller":           {calls, []string{"--namespace", "BAD_NS"}, []string{`--namespace "BAD_NS": must consist of`}},
		"instance id":                     {serves, []string{"--instance-id", "a_b"}, []string{`--instance-id "a_b": must consist of`}},
		"instance id too long":            {serves, []string{"--instance-id", long}, []string{"--instance-id", "at most 63 characters"}},
		"advertised name":                 {serves, []string{"--advertise-addr", "localhost"}, []string{`--advertise-addr "localhost" is not an IP address`}},
		"advertised for all":              {serves, []string{"--advertise-addr", "0.0.0.0"}, []string{"--advertise-addr", "not an address that peers can reach"}},
		"advertised for all, in disguise": {serves, []string{"--advertise-addr", "::ffff:0.0.0.0"}, []string{"--advertise-addr", "not an address that peers can reach"}},
		"advertised broadcast":            {serves, []string{"--advertise-addr", "255.255.255.255"}, []string{"--advertise-addr", "not an address that peers can reach"}},
		"advertised port 0":               {serves, []string{"--advertise-addr", "10.0.0.1:0"}, []string{"--advertise-addr", "has port 0, not 1 to 65535"}},
		"no weight":                       {serves, []string{"--weight", "0"}, []string{"--weight is 0, not 1 to 10000"}},
		"too much weight":                 {serves, []string{"--weight", "10001"}, []string{"--weight is 10001, not 1 to 10000"}},
		"negative weight":                 {serves, []string{"--weight", "-1"}, []string{`--weight "-1": want a number`}},
		"label without a value":           {serves, []string{"--label", "a"}, []string{`--label "a": "a" has no '='`}},
		"key of a label":                  {serves, []string{"--label", long[:64] + "=v"}, []string{`--label "` + long[:64] + `"`, "the key must be 1 to 63 characters long"}},
		"value of a label":                {serves, []string{"--label", "k=" + long}, []string{`--label "k"`, "the value must be at most 255 characters long"}},
		"label that moves a cursor":       {serves, []string{"--label", "k=\x1b[2J"}, []string{`--label "k"`, "no control characters"}},
		"label that is no text":           {serves, []string{"--label", "k=\xff"}, []string{`--label "k"`, "must be UTF-8"}},
		"too many labels":                 {serves, []string{"--label", strings.Join(many, ",")}, []string{"--label: 65 are given, at most 64 are kept"}},
		"zone too long":                   {serves, []string{"--zone", long[:64]}, []string{"--zone", "must be at most 63 characters long"}},
		"zone of a caller":                {calls, []string{"--zone", long[:64]}, []string{"--zone", "must be at most 63 characters long"}},
		"zone that is no text":            {serves, []string{"--zone", "\xff"}, []string{"--zone", "must be UTF-8"}},
		"health path":                     {serves, []string{"--health-path", "health"}, []string{`--health-path "health": begins neither with / nor with grpc:`}},
		"health path with fragment":       {serves, []string{"--health-path", "/a#b"}, []string{`--health-path "/a#b"`, "want a path such as /healthz"}},
		"gRPC service that is no text": {
			serves, []string{"--health-path", "grpc:\xff"}, []string{`--health-path "grpc:\xff"`, "must be UTF-8"},
		},
		"outbound for all":                  {calls, []string{"--outbound-addr", ":0"}, []string{"--outbound-addr :0 is not a loopback address"}},
		"local ports":                       {calls, []string{"--tcp-upstream", "5432=db,x=db", "--tcp-upstream", "0.0.0.0:1=db,5432=c"}, []string{`--tcp-upstream "x=db": "x" is not a port`, `--tcp-upstream "0.0.0.0:1=db": 0.0.0.0:1 is not a loopback address`, "127.0.0.1:5432 is taken already"}},
		"admin for all":                     {calls, []string{"--admin-addr", "0.0.0.0:0"}, []string{"--admin-addr 0.0.0.0:0 is not a loopback address"}},
		"a protocol that is none":           {calls, []string{"--app-protocol", "spdy"}, []string{"--app-protocol", "want one of http, http2, grpc, tcp, auto"}},
		"no time to drain":                  {calls, []string{"--drain-timeout", "0s"}, []string{"--drain-timeout is 0s: it must be more than 0"}},
		"less than no time":                 {calls, []string{"--drain-timeout", "-1s"}, []string{"--drain-timeout is -1s: it must be more than 0"}},
		"no time to be idle":                {calls, []string{"--tunnel-idle-timeout", "0s"}, []string{"--tunnel-idle-timeout is 0s: it must be 1 s or more"}},
		"hardly any":                        {calls, []string{"--tunnel-idle-timeout", "999ms"}, []string{"--tunnel-idle-timeout is 999ms: it must be 1 s or more"}},
		"whether outside is allowed":        {calls, []string{"--allow-external-connect=maybe"}, []string{`--allow-external-connect "maybe"`}},
		"trace ratio":                       {calls, []string{"--trace-ratio", "2"}, []string{"--trace-ratio is 2, not 0 to 1"}},
		"trace ratio, negative":             {calls, []string{"--trace-ratio", "-0.1"}, []string{"--trace-ratio is -0.1, not 0 to 1"}},
		"trace ratio, NaN":                  {calls, []string{"--trace-ratio", "NaN"}, []string{"--trace-ratio is NaN, not 0 to 1"}},
		"where spans go":                    {calls, []string{"--otlp-endpoint", "nowhere"}, []string{`--otlp-endpoint "nowhere": want grpc://host:port or http://host:port`}},
		"where spans go, by TLS and a path": {calls, []string{"--otlp-endpoint", "grpcs://a:1/b"}, []string{`--otlp-endpoint "grpcs://a:1/b": gRPC has no path`}},
		"access log":                        {calls, []string{"--access-log", "xml"}, []string{`--access-log "xml": want one of text, json, off`}},
		"log level":                         {calls, []string{"--log-level", "loud"}, []string{`--log-level "loud"`}},
		"argument":                          {calls, []string{"orders"}, []string{`unexpected argument "orders"`}},
		"all faults at once": {
			serves,
			[]string{
				"--service", "a_b", "--namespace", "c_d", "--instance-id", "e_f", "--advertise-addr", "x", "--weight", "0", "--label", "k=\x01",
				"--zone", "\n", "--health-path", "x", "--outbound-addr", ":0", "--admin-addr", ":0", "--drain-timeout", "0s", "--tunnel-idle-timeout", "0s", "--trace-ratio", "2",
				"--otlp-endpoint", "x",
			},
			[]string{
				`service name "a_b"`, `--namespace "c_d"`, `--instance-id "e_f"`, `--advertise-addr "x"`, "--weight is 0", `--label "k"`,
				"--zone ", "--health-path ", "--outbound-addr ", "--admin-addr ", "--drain-timeout ", "--tunnel-idle-timeout ", "--trace-ratio ", "--otlp-endpoint ",
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			code, told := execute(t, slices.Concat(c.base, c.more)...)
			if code != flags.ExitUsage {
				t.Errorf("exit code %d, want %d", code, flags.ExitUsage)
			}
			for _, want := range c.want {
				if !strings.Contains(told, want) {
					t.Errorf("%s\nlacks %q", told, want)
				}
			}
		})
	}
}

func TestCommandLineWithoutFaultStarts(t *testing.T) {
	calls := []string{"--control-plane", "127.0.0.1:1", "--outbound-addr", "127.0.0.1:0", "--admin-addr", "127.0.0.1:0", "--access-log", "off"}
	serves := slices.Concat(calls, []string{"--service", "orders", "--app-addr", "127.0.0.1:1", "--inbound-addr", "127.0.0.1:0"})
	for name, args := range map[string][]string{
		"calls, and says not who": calls,
		"calls":                   slices.Concat(calls, []string{"--service", "shop", "--namespace", "b", "--zone", "z", "--instance-id", "s1"}),
		"serves":                  serves,
		"serves, with all said": slices.Concat(serves, []string{"--namespace", "b", "--zone", strings.Repeat("z", 63), "--instance-id", "o1",
			"--weight", "10000", "--label", "a=b", "--label", "c=", "--health-path", "grpc:", "--advertise-addr", "10.0.0.1:15006", "--drain-timeout", "1s", "--tunnel-idle-timeout", "1s",
			"--app-protocol", "grpc", "--multiplex=false", "--allow-external-connect"}),
		"serves TCP, and calls it": slices.Concat(serves, []string{"--app-protocol", "tcp", "--tcp-upstream", "0=db:5432,localhost:0=cache.b", "--tcp-upstream", "[::1]:0=x"}),
		"serves whatever it is":    slices.Concat(serves, []string{"--app-protocol", "auto"}),
		"empty is not said":        slices.Concat(calls, []string{"--service", "", "--namespace", "", "--instance-id", "", "--advertise-addr", "", "--health-path", "", "--zone", ""}),
	} {
		t.Run(name, func(t *testing.T) {
			if code, told := execute(t, args...); code != flags.ExitOK {
				t.Errorf("exit code %d: %s", code, told)
			}
		})
	}
}

func TestLocalPortsMayBeAVariable(t *testing.T) {
	t.Setenv("FAIRLEAD_TCP_UPSTREAM", "5432=db,y=db")
	code, told := execute(t, "--control-plane", "127.0.0.1:1", "--outbound-addr", "127.0.0.1:0", "--admin-addr", "127.0.0.1:0")
	if want := `--tcp-upstream "y=db": "y" is not a port`; code != flags.ExitUsage || !strings.Contains(told, want) {
		t.Errorf("exit code %d: %s lacks %q", code, told, want)
	}
}
