package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strings"

	"github.com/fairlead-mesh/fairlead/pkg/meshtest/measure"
	"github.com/fairlead-mesh/fairlead/pkg/meshtest/play"
)

// service is the name that participants are registered by.
const service = "participants"

// fairlead is a control plane with the two etcds that it embeds.
type fairlead struct {
	program, dir string
	args         []string
	plane        *play.Process
	http         string // host:port
	body         string // of a saga, behind its id
}

func startFairlead(ctx context.Context, b *bench, s *services) (coordinator, error) {
	return b.fairlead(ctx, s)
}

// fairlead starts one, with further flags, in which the participants are registered.
func (b *bench) fairlead(ctx context.Context, s *services, flags ...string) (*fairlead, error) {
	f := &fairlead{program: filepath.Join(b.bin, "controlplane"), body: `","steps":[` + strings.Join([]string{
		fairleadStep("reserve"), fairleadStep("charge"), fairleadStep("ship"),
	}, ",") + `]}`}
	var err error
	if f.dir, err = b.folder("fairlead"); err != nil {
		return nil, err
	}
	if f.http, err = play.FreeAddress(); err != nil {
		return nil, err
	}
	grpc, err := play.FreeAddress()
	if err != nil {
		return nil, err
	}
	f.args = append([]string{"--data-dir", filepath.Join(f.dir, "data"), "--grpc-addr", grpc, "--http-addr", f.http, "--log-level", "info"}, flags...)
	if err := f.start(ctx); err != nil {
		return nil, errors.Join(err, f.stop())
	}
	host, port, err := net.SplitHostPort(s.address)
	if err != nil {
		return nil, errors.Join(err, f.stop())
	}
	registration := fmt.Sprintf(`{"id":"one","address":%q,"ports":[{"name":"http","number":%s,"protocol":"HTTP"}],"ttl":"3600s"}`, host, port)
	if _, err := ask(ctx, http.DefaultClient, http.MethodPost, f.url("/v1/namespaces/default/services/"+service+"/instances"), []byte(registration)); err != nil {
		return nil, errors.Join(err, f.stop())
	}
	return f, nil
}

func fairleadStep(name string) string {
	return fmt.Sprintf(`{"name":%q,"action":{"service":%q,"path":"/act","body":{"amount":30}},"compensate":{"service":%q,"path":"/undo","body":{"amount":30}}}`, name, service, service)
}

// start starts the control plane, or starts it again where it was.
func (f *fairlead) start(ctx context.Context) (err error) {
	if f.plane, err = play.Start(f.dir, "controlplane", f.program, f.args...); err != nil {
		return err
	}
	if _, err = f.plane.Await(ctx, `(control plane listens)`); err != nil {
		return err
	}
	return until(ctx, func() (bool, error) {
		_, err := ask(ctx, http.DefaultClient, http.MethodGet, f.url("/readyz"), nil)
		var unready *statusError
		if errors.As(err, &unready) {
			return false, nil
		}
		return err == nil, err
	})
}

func (f *fairlead) url(path string) string { return "http://" + f.http + path }

func (f *fairlead) carry(ctx context.Context, client *http.Client, id string) error {
	if _, err := ask(ctx, client, http.MethodPost, f.url("/v1/sagas"), []byte(`{"id":"`+id+f.body)); err != nil {
		return err
	}
	answer, err := ask(ctx, client, http.MethodGet, f.url("/v1/sagas/"+id+":wait?timeout=30s"), nil)
	if err == nil && !bytes.Contains(answer, []byte(`"state":"completed"`)) {
		err = fmt.Errorf("it is not completed: %s", answer)
	}
	return err
}

func (f *fairlead) usage() (measure.Usage, error) { return measure.TreeUsage(f.plane.ID()) }

func (f *fairlead) stop() error {
	if f.plane == nil {
		return nil
	}
	return f.plane.Stop()
}
