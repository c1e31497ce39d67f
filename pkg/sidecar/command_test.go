package sidecar

import (
	"slices"
	"testing"
)

func TestFlagsWithoutEffectAreNamed(t *testing.T) {
	onlyCalls, file := Config{ControlPlane: "127.0.0.1:1"}, Config{Bootstrap: "f"}
	serves := onlyCalls
	serves.Workload.AppAddr = "127.0.0.1:2"
	args := []string{"--weight", "1", "--label", "a=b", "--inbound-addr", "127.0.0.1:0", "--outbound-addr", "127.0.0.1:0", "--health-path", "", "--allow-external-connect"}
	for _, c := range []struct {
		name   string
		config Config
		want   []string
		needed string
	}{
		{"a sidecar that only calls", onlyCalls, []string{"--inbound-addr", "--label", "--weight"}, "--app-addr"},
		{"one with an application", serves, nil, ""},
		{"one of a file", file, []string{"--allow-external-connect", "--inbound-addr", "--label", "--outbound-addr", "--weight"}, "--control-plane"},
	} {
		set := Command()
		if err := set.ParseFlags(args); err != nil {
			t.Fatal(err)
		}
		if names, needed := idle(set.Flags(), c.config); !slices.Equal(names, c.want) || needed != c.needed {
			t.Errorf("%s: %q without %q, want %q without %q", c.name, names, needed, c.want, c.needed)
		}
	}
}
