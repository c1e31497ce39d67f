package flags

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// settings are what the sample commands read.
type settings struct {
	Listen   ListenAddress
	App      Address
	Labels   KeyValues
	Format   string
	Insecure bool
	Weight   int
	Wait     time.Duration
	Peers    []string
}

// proxy is a command like those of the binaries without subcommands.
func proxy(s *settings, run func() error) *cobra.Command {
	c := &cobra.Command{
		Use:     "proxy",
		Short:   "Carry requests",
		Long:    "proxy carries requests between services.",
		Example: "  proxy --app-addr 127.0.0.1:8080 --label version=v1",
		Version: "v1.2.3",
		RunE:    func(*cobra.Command, []string) error { return run() },
	}
	s.Listen = "127.0.0.1:15001"
	f := c.Flags()
	f.Var(&s.Listen, "outbound-addr", "where the app's requests are taken")
	f.Var(&s.App, "app-addr", "where the app takes requests; without it the proxy only calls, and what it would serve is answered with an error that says so")
	f.Var(&s.Labels, "label", "label of the instance; may be repeated")
	f.Var(OneOf(&s.Format, "text", LogText, LogJSON), "log-format", "format of the log")
	f.BoolVar(&s.Insecure, "insecure", false, "allow listeners that are not on loopback")
	f.IntVarP(&s.Weight, "weight", "w", 1, "`share` of the traffic, 1 to 10000")
	f.DurationVar(&s.Wait, "wait", 5*time.Second, "how long to wait, with a unit such as ms or s")
	f.StringSliceVar(&s.Peers, "peers", nil, "`names` of peers")
	return c
}

// ctl is a command with subcommands.
func ctl(output *string, run func(args []string) error) *cobra.Command {
	root := &cobra.Command{Use: "ctl", Short: "Look at the mesh", Version: "v1.2.3"}
	root.PersistentFlags().VarP(OneOf(output, "table", "table", "json"), "output", "o", "format of the answer")
	list := &cobra.Command{
		Use: "list", Short: "List services",
		RunE: func(_ *cobra.Command, args []string) error { return run(args) },
	}
	show := &cobra.Command{
		Use: "show NAME", Short: "Show a service", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error { return run(args) },
	}
	root.AddCommand(list, show)
	return root
}

// execute returns the exit code and what was printed on both outputs.
func execute(root *cobra.Command, args ...string) (code int, stdout, stderr string) {
	var out, errOut bytes.Buffer
	root.SetOut(&out)
	root.SetErr(&errOut)
	root.SetArgs(append([]string{}, args...)) // of none, cobra would take the test's own
	code = Execute(root)
	return code, out.String(), errOut.String()
}

func nothing() error { return nil }

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(got, string(want)); diff != "" {
		t.Errorf("%s (-got, +want):\n%s", name, diff)
	}
}

func TestHelpNamesDefaultUnitAndVariableOfEachFlag(t *testing.T) {
	var s settings
	var output string
	for name, run := range map[string]func() (int, string, string){
		"proxy.txt":    func() (int, string, string) { return execute(proxy(&s, nothing), "--help") },
		"ctl.txt":      func() (int, string, string) { return execute(ctl(&output, nil), "--help") },
		"ctl-show.txt": func() (int, string, string) { return execute(ctl(&output, nil), "show", "--help") },
	} {
		code, stdout, stderr := run()
		if code != ExitOK || stderr != "" {
			t.Errorf("%s: exit code %d, stderr %q", name, code, stderr)
		}
		golden(t, name, stdout)
	}
}

func TestTheFlagWinsOverTheVariableAndThatOverTheDefault(t *testing.T) {
	t.Setenv("FAIRLEAD_OUTBOUND_ADDR", ":1")
	t.Setenv("FAIRLEAD_LABEL", "a=1,b=2")
	t.Setenv("FAIRLEAD_PEERS", "x,y")
	t.Setenv("FAIRLEAD_INSECURE", "true")
	t.Setenv("FAIRLEAD_WAIT", "250ms")
	t.Setenv("FAIRLEAD_WEIGHT", "") // as if it were not set
	var got settings
	code, _, stderr := execute(proxy(&got, nothing), "--label", "c=3", "--label=d=4,e=", "--outbound-addr", ":2")
	if code != ExitOK {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	want := settings{
		Listen:   ":2",
		Labels:   KeyValues{"c": "3", "d": "4", "e": ""},
		Format:   LogText,
		Insecure: true,
		Weight:   1,
		Wait:     250 * time.Millisecond,
		Peers:    []string{"x", "y"},
	}
	if diff := cmp.Diff(got, want); diff != "" {
		t.Errorf("-got, +want:\n%s", diff)
	}
}

func TestTheVariableSatisfiesARequiredFlag(t *testing.T) {
	for value, want := range map[string]int{"127.0.0.1:80": ExitOK, "": ExitUsage} {
		t.Setenv("FAIRLEAD_APP_ADDR", value)
		var s settings
		c := proxy(&s, nothing)
		if err := c.MarkFlagRequired("app-addr"); err != nil {
			t.Fatal(err)
		}
		if code, _, stderr := execute(c); code != want {
			t.Errorf("%q: exit code %d: %s", value, code, stderr)
		}
	}
}

func TestVariablesOfASubcommandAndOfItsParentsAreRead(t *testing.T) {
	t.Setenv("FAIRLEAD_OUTPUT", "json")
	var output string
	root := ctl(&output, func([]string) error { return nil })
	hooked := false
	root.Commands()[0].PersistentPreRun = func(*cobra.Command, []string) { hooked = output == "json" }
	if code, _, stderr := execute(root, "list"); code != ExitOK || output != "json" {
		t.Errorf("exit code %d, output %q: %s", code, output, stderr)
	}
	if !hooked {
		t.Error("the subcommand's own hook did not run after the environment was applied")
	}
}

func TestErrorsBecomeAMessageAndAnExitCode(t *testing.T) {
	const proxyHint = "run 'proxy --help' for usage\n"
	for _, c := range []struct {
		name        string
		environment map[string]string
		args        []string
		err         error // of the command
		code        int
		stderr      string
	}{
		{name: "success prints nothing"},
		{
			name: "the command fails", err: errors.New("store: connection lost"),
			code: ExitFailure, stderr: "error: store: connection lost\n",
		},
		{
			name: "joined failures are indented", err: errors.Join(errors.New("a"), errors.New("b")),
			code: ExitFailure, stderr: "error: a\n       b\n",
		},
		{
			name: "the command finds that it was not called correctly", err: Usagef("--tls-key needs --tls-cert"),
			code: ExitUsage, stderr: "error: --tls-key needs --tls-cert\n" + proxyHint,
		},
		{
			name: "the command says with its exit code what it found", err: &ExitError{7, errors.New("parked")},
			code: 7, stderr: "error: parked\n",
		},
		{
			name: "unknown flag", args: []string{"--wieght=2"},
			code: ExitUsage, stderr: "error: unknown flag: --wieght\n" + proxyHint,
		},
		{
			name: "argument", args: []string{"now"},
			code: ExitUsage, stderr: "error: unexpected argument \"now\"\n" + proxyHint,
		},
		{
			name: "value of a flag", args: []string{"-w", "heavy"},
			code: ExitUsage, stderr: "error: --weight \"heavy\": want a number: invalid syntax\n" + proxyHint,
		},
		{
			name: "address of a flag", args: []string{"--app-addr=8080"},
			code: ExitUsage, stderr: "error: --app-addr \"8080\": has no host: want host:port, such as 127.0.0.1:8080\n" + proxyHint,
		},
		{
			name: "values of variables, all at once",
			environment: map[string]string{
				"FAIRLEAD_INSECURE": "maybe", "FAIRLEAD_LABEL": "a", "FAIRLEAD_LOG_FORMAT": "xml",
				"FAIRLEAD_WAIT": "5", "FAIRLEAD_WEIGHT": "99999999999999999999",
			},
			code: ExitUsage,
			stderr: "error: FAIRLEAD_INSECURE \"maybe\": want true or false: invalid syntax\n" +
				"       FAIRLEAD_LABEL \"a\": \"a\" has no '=': want key=value, several separated by commas\n" +
				"       FAIRLEAD_LOG_FORMAT \"xml\": want one of text, json\n" +
				"       FAIRLEAD_WAIT \"5\": time: missing unit in duration \"5\"\n" +
				"       FAIRLEAD_WEIGHT \"99999999999999999999\": too large or too small a number: value out of range\n" + proxyHint,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			for name, value := range c.environment {
				t.Setenv(name, value)
			}
			var s settings
			code, stdout, stderr := execute(proxy(&s, func() error { return c.err }), c.args...)
			if code != c.code || stdout != "" {
				t.Errorf("exit code %d, stdout %q", code, stdout)
			}
			if diff := cmp.Diff(stderr, c.stderr); diff != "" {
				t.Errorf("stderr (-got, +want):\n%s", diff)
			}
		})
	}
}

func TestWrongUseOfSubcommands(t *testing.T) {
	for _, c := range []struct {
		args   []string
		stderr string
	}{
		{[]string{"lists"}, "error: unknown command \"lists\" for \"ctl\"\n\n       Did you mean this?\n       \tlist\nrun 'ctl --help' for usage\n"},
		{[]string{"list", "all"}, "error: unexpected argument \"all\"\nrun 'ctl list --help' for usage\n"},
		{[]string{"show"}, "error: accepts 1 arg(s), received 0\nrun 'ctl show --help' for usage\n"},
	} {
		var output string
		code, _, stderr := execute(ctl(&output, nil), c.args...)
		if code != ExitUsage || stderr != c.stderr {
			t.Errorf("%v: exit code %d, stderr (-got, +want)\n%s", c.args, code, cmp.Diff(stderr, c.stderr))
		}
	}
}

func TestVersionFlagPrintsTheVersion(t *testing.T) {
	var s settings
	if _, stdout, _ := execute(proxy(&s, nothing), "--version"); stdout != "proxy version v1.2.3\n" {
		t.Errorf("%q", stdout)
	}
	c := proxy(&s, nothing)
	c.Version = ""
	if _, stdout, _ := execute(c, "--version"); !strings.Contains(stdout, Version()) {
		t.Errorf("%q is not about %q", stdout, Version())
	}
}
