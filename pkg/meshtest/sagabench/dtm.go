package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/internal/dbserver"
	"github.com/fairlead-mesh/fairlead/pkg/meshtest/measure"
	"github.com/fairlead-mesh/fairlead/pkg/meshtest/play"
)

// dtm is dtm with a PostgreSQL of its own.
type dtm struct {
	store  *dbserver.Server
	server *play.Process
	url    string
	body   string // of a saga, behind its id
}

// dtmConnections is how many dtm keeps to PostgreSQL, in each of its pools. Of 16, 32, 64 and 128, with two cores and 256 clients, these cost the least.
const dtmConnections = 64

// postgreSQLSettings are those that one would give it for this work: what is written is on disk before it is answered, as by default, and there is memory enough.
func postgreSQLSettings() []string {
	return []string{"max_connections=1000", "shared_buffers=512MB", "wal_buffers=16MB", "max_wal_size=4GB", "checkpoint_timeout=15min"}
}

// startDTM starts it as it is by default, which tells its store of a step's outcome some time behind the next step's call.
func startDTM(ctx context.Context, b *bench, s *services) (coordinator, error) {
	return b.dtm(ctx, s, false)
}

// startDTMSync starts it so that a step's outcome is durable before the next step is called, as it is with Fairlead.
func startDTMSync(ctx context.Context, b *bench, s *services) (coordinator, error) {
	return b.dtm(ctx, s, true)
}

func (b *bench) dtm(ctx context.Context, s *services, sync bool) (_ *dtm, err error) {
	d := &dtm{}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.stop())
		}
	}()
	step := fmt.Sprintf(`{"action":"http://%s/act","compensate":"http://%s/undo"}`, s.address, s.address)
	d.body = `","trans_type":"saga","protocol":"http","wait_result":true,"steps":[` + strings.Join([]string{step, step, step}, ",") +
		`],"payloads":["{\"amount\":30}","{\"amount\":30}","{\"amount\":30}"]}`
	dir, err := b.folder("dtm")
	if err != nil {
		return nil, err
	}
	if d.store, err = dbserver.PostgreSQL(postgreSQLSettings()...); err != nil {
		return nil, err
	}
	schema, err := os.ReadFile(filepath.Join(b.bin, "peers", "dtm.sql"))
	if err != nil {
		return nil, err
	}
	if _, err := d.store.Run("psql", "-h", d.store.Dir, "-d", "postgres", "-q", "-v", "ON_ERROR_STOP=1", "-c", string(schema)); err != nil {
		return nil, err
	}
	config, address, err := dtmConfig(d.store, sync)
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "dtm.yml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, err
	}
	d.url = "http://" + address + "/api/dtmsvr/"
	if d.server, err = play.Start(dir, "dtm", filepath.Join(b.bin, "peers", "dtm"), "-c", file); err != nil {
		return nil, err
	}
	return d, d.await(ctx)
}

// dtmConfig returns dtm's configuration, and where it listens then.
func dtmConfig(store *dbserver.Server, sync bool) (config, address string, err error) {
	var ports [3]string
	for i := range ports {
		at, err := play.FreeAddress()
		if err != nil {
			return "", "", err
		}
		if _, ports[i], err = net.SplitHostPort(at); err != nil {
			return "", "", err
		}
	}
	updates := "UpdateBranchAsyncGoroutineNum: 4" // with one, they are what everything waits for
	if sync {
		updates = "UpdateBranchSync: 1"
	}
	return fmt.Sprintf(`Store:
  Driver: postgres
  Host: %s
  Port: 5432
  User: %s
  Password: none # it asks for no password
  Db: postgres
  Schema: public
  MaxOpenConns: %d
  MaxIdleConns: %d
HttpPort: %s
GrpcPort: %s
JsonRpcPort: %s
LogLevel: error
%s
`, store.Dir, store.User, dtmConnections, dtmConnections, ports[0], ports[1], ports[2], updates), net.JoinHostPort("127.0.0.1", ports[0]), nil
}

// await waits until it answers: it says nothing when it does.
func (d *dtm) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		_, err := ask(ctx, http.DefaultClient, http.MethodGet, d.url+"version", nil)
		if err == nil {
			return nil
		}
		select {
		case <-d.server.Done():
			return fmt.Errorf("dtm ended before it answered: %w", err)
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
}

func (d *dtm) carry(ctx context.Context, client *http.Client, id string) error {
	answer, err := ask(ctx, client, http.MethodPost, d.url+"submit", []byte(`{"gid":"`+id+d.body))
	if err == nil && !bytes.Contains(answer, []byte("SUCCESS")) {
		err = fmt.Errorf("it has not succeeded: %s", answer)
	}
	return err
}

func (d *dtm) usage() (measure.Usage, error) {
	server, err := measure.TreeUsage(d.server.ID())
	if err != nil {
		return server, err
	}
	store, err := measure.TreeUsage(d.store.ID())
	return server.Plus(store), err
}

func (d *dtm) stop() error {
	var faults []error
	if d.server != nil {
		d.server.Kill() // it has no end of its own that could fail
	}
	if d.store != nil {
		faults = append(faults, d.store.Stop())
	}
	return errors.Join(faults...)
}
