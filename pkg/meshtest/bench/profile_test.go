package main

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestTheSubjectIsProfiledDuringItsLoadWhereAFolderIsNamed(t *testing.T) {
	for _, c := range []struct {
		name, proxy string
		named       bool
		status      int
		fails       bool
		files       int
	}{
		{"no folder", "fairlead", false, 200, false, 0},
		{"a peer", "nginx", true, 200, false, 0},
		{"the subject, two sidecars", "fairlead", true, 200, false, 2},
		{"the subject does not say", "fairlead", true, 503, true, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			asked := make(chan string, 2)
			admin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
				asked <- q.URL.String()
				w.WriteHeader(c.status)
				_, _ = w.Write([]byte("profile"))
			}))
			defer admin.Close()
			port := admin.Listener.Addr().(*net.TCPAddr).Port
			m := measurement{options: options{duration: 3 * time.Second}}
			if c.named {
				m.profiles = filepath.Join(t.TempDir(), "profiles")
			}
			r := running{suite: suite{name: "mesh", subject: "fairlead"}, proxy: c.proxy, admins: []int{port, port}}
			l, err := m.profiled(context.Background(), r, workload{name: "32c"}, func() (load, error) { return load{Requests: 7}, nil })
			if (err != nil) != c.fails || l.Requests != 7 {
				t.Errorf("%+v, %v", l, err)
			}
			close(asked)
			for url := range asked {
				if url != "/debug/pprof/profile?seconds=3" {
					t.Errorf("it asks for %s", url)
				}
			}
			files, _ := filepath.Glob(filepath.Join(m.profiles, "*.pprof"))
			if m.profiles == "" {
				files = nil
			}
			if len(files) != c.files {
				t.Errorf("%d files: %v", len(files), files)
			}
			for _, file := range files {
				if data, err := os.ReadFile(file); err != nil || string(data) != "profile" {
					t.Errorf("%q, %v", data, err)
				}
			}
		})
	}
}
