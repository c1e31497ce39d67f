package meshctl

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/user"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/fairlead-mesh/fairlead/pkg/flags"
)

// Exit codes of saga wait, beside those of package flags: what became of a saga that is not completed.
const (
	exitCompensated = 3
	exitParked      = 4
	exitGoesOn      = 5 // the time was over first
)

// maxFile bounds a file with a definition. It is more than the control plane takes, which says itself how much that is.
const maxFile = 1 << 20

// sagas is what the commands about sagas share.
type sagas struct {
	*client
	address flags.Address
}

func (c *client) saga() *cobra.Command {
	s := &sagas{client: c, address: "127.0.0.1:15014"}
	cmd := &cobra.Command{
		Use:   "saga",
		Short: "Start sagas, see where they stand, and decide what a person has to",
		Args:  cobra.ArbitraryArgs,
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return flags.Usagef("there is no command %q for sagas", args[0])
			}
			return flags.Usagef("say which command")
		},
	}
	cmd.PersistentFlags().Var(&s.address, "control-plane-http", "the control plane's HTTP listener, which serves sagas")
	cmd.AddCommand(s.start(), s.list(), s.show(), s.wait(),
		s.verb("retry", "Call at once what waits to be called, with all its attempts before it", nil),
		s.verb("skip", "Say that a step does not matter: it is neither done nor undone from here on", nil),
		s.resolve(),
		s.verb("resume", "Go on with a parked saga", nil),
		s.verb("abort", "Undo what was done, as long as the pivot has not happened and cannot have", nil))
	return cmd
}

func (s *sagas) start() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:     "start -f FILE",
		Short:   "Start a saga, or see where it stands if it was started already",
		Example: "  meshctl saga start -f order-42.yaml\n  make-order | meshctl saga start -f -",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if file == "" {
				return flags.Usagef("--file is required: a definition in JSON or YAML, or - for standard input")
			}
			definition, err := read(cmd.InOrStdin(), file)
			if err != nil {
				return err
			}
			return s.answer(cmd.Context(), request{method: http.MethodPost, path: "/v1/sagas", body: definition, again: true})
		},
	}
	cmd.Flags().StringVarP(&file, "file", "f", "", "the saga's definition, in JSON or YAML; - is standard input")
	return cmd
}

// read reads a definition. What begins with { is JSON, and is sent as it is; the rest is YAML.
func read(stdin io.Reader, file string) (definition []byte, err error) {
	in := stdin
	if file == "-" {
		file = "standard input"
	} else {
		f, err := os.Open(file) //nolint:gosec // it is the user who names it
		if err != nil {
			return nil, fmt.Errorf("--file: %w", err)
		}
		defer func() { _ = f.Close() }()
		in = f
	}
	text, err := io.ReadAll(io.LimitReader(in, maxFile+1))
	text = bytes.TrimSpace(bytes.TrimPrefix(text, []byte("\xef\xbb\xbf"))) // the mark that some editors put in front
	switch {
	case err != nil:
		return nil, fmt.Errorf("--file: %w", err)
	case len(text) > maxFile:
		return nil, fmt.Errorf("--file: %s has more than %d bytes, and so is no definition", file, maxFile)
	case len(text) == 0:
		return nil, fmt.Errorf("--file: %s is empty", file)
	case text[0] == '{':
		return text, nil
	}
	if definition, err = jsonOf(text); err != nil {
		return nil, fmt.Errorf("--file: %s: %w", file, err)
	}
	return definition, nil
}

func (s *sagas) list() *cobra.Command {
	var state, label string
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List sagas, by id: those that are open, and those that ended within the retention time",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if label != "" && !strings.Contains(label, "=") {
				return flags.Usagef("--label %q: want NAME=VALUE", label)
			}
			query := url.Values{"limit": {"1000"}}
			if state != "" {
				query.Set("state", state)
			}
			if label != "" {
				query.Set("label", label)
			}
			return s.pages(cmd.Context(), query)
		},
	}
	cmd.Flags().Var(flags.OneOf(&state, "", "running", "compensating", "completed", "compensated", "parked"), "state", "only those in this state (default: all)")
	cmd.Flags().StringVar(&label, "label", "", "only those with this label, as NAME=VALUE")
	return cmd
}

// pages shows what a list has on all its pages.
func (s *sagas) pages(ctx context.Context, query url.Values) error {
	api := s.dial()
	defer api.close()
	var all struct {
		Sagas []json.RawMessage `json:"sagas"`
	}
	all.Sagas = []json.RawMessage{}
	for {
		b, err := api.ask(ctx, request{method: http.MethodGet, path: "/v1/sagas?" + query.Encode(), again: true})
		if err != nil {
			return err
		}
		var page struct {
			Sagas []json.RawMessage `json:"sagas"`
			After string            `json:"after"`
		}
		if err := json.Unmarshal(b, &page); err != nil {
			return s.strange(err)
		}
		all.Sagas = append(all.Sagas, page.Sagas...)
		if page.After == "" {
			break
		}
		if page.After <= query.Get("after") {
			return fmt.Errorf("the control plane at %s does not get on with its list: behind saga %s comes %s", s.address, plain(query.Get("after")), plain(page.After))
		}
		query.Set("after", page.After)
	}
	if s.format != table {
		b, err := json.Marshal(all)
		if err != nil {
			return err
		}
		return s.raw(b)
	}
	views := make([]sagaView, len(all.Sagas))
	for i, text := range all.Sagas {
		if err := json.Unmarshal(text, &views[i]); err != nil {
			return s.strange(err)
		}
	}
	return writeTable(s.out, sagaRows(views, s.now()))
}

func (s *sagas) show() *cobra.Command {
	return &cobra.Command{
		Use:   "show ID",
		Short: "Show where a saga and its steps stand, and what people did to it",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			path, err := pathOf(args[0])
			if err != nil {
				return err
			}
			return s.answer(cmd.Context(), request{method: http.MethodGet, path: path, again: true})
		},
	}
}

func (s *sagas) wait() *cobra.Command {
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "wait ID",
		Short: "Wait until a saga has ended or is parked, and show it",
		Long: fmt.Sprintf("wait waits until a saga has ended or is parked, and shows it. Its exit code is 0 if the saga is completed, %d if\n"+
			"compensated, %d if parked, and %d if it went on when the time was over.", exitCompensated, exitParked, exitGoesOn),
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			path, err := pathOf(args[0])
			if err != nil {
				return err
			}
			if timeout <= 0 {
				return flags.Usagef("--timeout is %v: it must be more than 0", timeout)
			}
			b, err := s.await(cmd.Context(), path, timeout)
			if err != nil {
				return err
			}
			v, err := s.print(b)
			if err != nil {
				return err
			}
			return became(v, timeout)
		},
	}
	// Of the same name as that of all commands: here it is what people mean by it.
	cmd.Flags().DurationVar(&timeout, "timeout", 30*time.Second, "how long to wait")
	return cmd
}

// became is nil if a saga is completed, or says with an exit code what it is instead.
func became(v *sagaView, timeout time.Duration) error {
	end := func(code int, format string, args ...any) error {
		return &flags.ExitError{Code: code, Err: fmt.Errorf(format, args...)}
	}
	switch v.State {
	case "completed":
		return nil
	case "compensated":
		return end(exitCompensated, "saga %s is compensated: %s", plain(v.ID), plain(v.Reason))
	case "parked":
		return end(exitParked, "saga %s is parked, for a person to decide: %s", plain(v.ID), plain(v.Reason))
	default:
		return end(exitGoesOn, "saga %s is still %s after %v (--timeout)", plain(v.ID), plain(v.State), timeout)
	}
}

// waitAtOnce is how long one request waits, so that a control plane which fell silent is noticed.
const waitAtOnce = 30 * time.Second

// await returns a saga once it has ended or is parked, or the timeout is over. A control plane that was there and goes away is waited for: sagas
// outlive it.
func (s *sagas) await(ctx context.Context, path string, timeout time.Duration) ([]byte, error) {
	api := s.dial()
	defer api.close()
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	ends, _ := ctx.Deadline()
	reached, said := false, false
	for {
		var left time.Duration
		if reached { // else it is one look that does not wait: who does not answer that is not there
			left = min(max(time.Until(ends), 0), waitAtOnce).Round(time.Millisecond)
		}
		// The answer may come as late as any; the wait itself is the server's.
		b, err := api.once(context.WithoutCancel(ctx), request{method: http.MethodGet, path: path + ":wait?timeout=" + left.String()}, left+s.timeout)
		var no *refusal
		errors.As(err, &no)
		first := !reached
		reached = reached || err == nil || no != nil
		switch {
		case err == nil:
			v, err := viewOf(b)
			if err != nil {
				return nil, s.strange(err)
			}
			if v.settled() || ctx.Err() != nil {
				return b, nil
			}
			if said = false; first {
				continue
			}
		case no != nil && no.status != http.StatusServiceUnavailable, !reached, ctx.Err() != nil:
			return nil, err
		case !said:
			_, _ = fmt.Fprintf(s.err, "waiting on: %v\n", err)
			said = true
		}
		_ = pause(ctx, cmp.Or(no.after(), minPause)) // if the time is over, there is one last look, which does not wait
	}
}

// note is what a person says of what he or she does.
type note struct {
	Step string `json:"step,omitempty"`
	As   string `json:"as,omitempty"`
	By   string `json:"by,omitempty"`
	Note string `json:"note,omitempty"`
}

func (s *sagas) resolve() *cobra.Command {
	var as string
	cmd := s.verb("resolve", "Say what became of a step that a person has looked after", &as)
	cmd.Flags().Var(flags.OneOf(&as, "", "done", "refused", "compensated"), "as", "what became of it")
	return cmd
}

// verb returns the command of something that people do to a saga. as is of resolve alone.
func (s *sagas) verb(name, short string, as *string) *cobra.Command {
	var n note
	cmd := &cobra.Command{Use: name + " ID", Short: short, Args: cobra.ExactArgs(1)}
	if name == "skip" || name == "resolve" {
		cmd.Use, cmd.Args = name+" ID STEP", cobra.ExactArgs(2)
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		path, err := pathOf(args[0])
		if err != nil {
			return err
		}
		if len(args) == 2 {
			n.Step = args[1]
		}
		if as != nil {
			if n.As = *as; n.As == "" {
				return flags.Usagef("--as is required: done, refused or compensated")
			}
		}
		if n.By == "" {
			if n.By, err = me(); err != nil {
				return err
			}
		}
		b, err := json.Marshal(n)
		if err != nil {
			return err
		}
		return s.answer(cmd.Context(), request{method: http.MethodPost, path: path + ":" + name, body: b})
	}
	cmd.Flags().StringVar(&n.By, "by", "", "who does it (default: the name of the user)")
	cmd.Flags().StringVar(&n.Note, "note", "", "why, for those who look at the saga later")
	return cmd
}

// me is the name of the user.
func me() (string, error) {
	u, err := user.Current()
	if err != nil {
		return "", flags.Usagef("--by is required, since the name of the user cannot be found out: %w", err)
	}
	return u.Username, nil
}

// pathOf is the path of a saga. An id that could not be one is not sent: :, / or a dot alone would make it something else.
func pathOf(id string) (string, error) {
	for i, r := range id {
		switch {
		case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9':
		case strings.ContainsRune("-_.", r) && i > 0 && i < len(id)-1:
		default:
			return "", flags.Usagef("%s is no id of a saga: letters, digits, and - _ . in between", strconv.Quote(id))
		}
	}
	if id == "" {
		return "", flags.Usagef("the id of the saga is empty")
	}
	return "/v1/sagas/" + id, nil
}

// answer asks, and shows the saga that is the answer.
func (s *sagas) answer(ctx context.Context, r request) error {
	api := s.dial()
	defer api.close()
	b, err := api.ask(ctx, r)
	if err != nil {
		return err
	}
	_, err = s.print(b)
	return err
}

// print shows a saga in the format that was asked for.
func (s *sagas) print(b []byte) (*sagaView, error) {
	v, err := viewOf(b)
	if err != nil {
		return nil, s.strange(err)
	}
	if s.format != table {
		return v, s.raw(b)
	}
	return v, writeSaga(s.out, v, s.now())
}

// raw writes what the API answered as JSON, or as a YAML document.
func (s *sagas) raw(b []byte) error {
	var line bytes.Buffer
	if err := json.Compact(&line, b); err != nil {
		return err
	}
	if s.format == asJSON {
		_, err := fmt.Fprintln(s.out, line.String())
		return err
	}
	y, err := yamlOf(line.Bytes())
	if err == nil {
		_, err = fmt.Fprintf(s.out, "---\n%s", y)
	}
	return err
}
