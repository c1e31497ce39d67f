package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sync"
)

// profiled is the load. Where profiles are wanted, each sidecar that it loads takes one meanwhile; they are in files
// of the folder when it returns.
func (m *measurement) profiled(ctx context.Context, r running, w workload, work func() (load, error)) (load, error) {
	if m.profiles == "" || r.proxy != r.suite.subject {
		return work()
	}
	failed := make([]error, len(r.admins))
	var profiles sync.WaitGroup
	for i, admin := range r.admins {
		file := filepath.Join(m.profiles, fmt.Sprintf("%s-%s-%d.pprof", r.suite.name, w.name, i+1))
		profiles.Go(func() { failed[i] = m.profile(ctx, admin, file) })
	}
	l, err := work()
	profiles.Wait()
	return l, errors.Join(errors.Join(failed...), err)
}

// profile has a sidecar take a profile for as long as a sample lasts.
func (m *measurement) profile(ctx context.Context, admin int, file string) error {
	url := fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", local(admin), int(m.duration.Seconds()))
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	data, err := io.ReadAll(response.Body)
	if err := errors.Join(err, response.Body.Close()); err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, response.Status)
	}
	if err := os.MkdirAll(m.profiles, 0o755); err != nil {
		return err
	}
	return os.WriteFile(file, data, 0o644)
}
