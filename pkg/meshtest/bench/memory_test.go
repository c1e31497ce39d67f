package main

import (
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
)

// idling is a server whose connections stay, or end after their first response.
func idling(t *testing.T, stay bool) running {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/100" {
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	server.Config.SetKeepAlivesEnabled(stay)
	t.Cleanup(server.Close)
	return running{port: server.Listener.Addr().(*net.TCPAddr).Port, groups: []int{syscall.Getpgrp()}}
}

func TestMemoryIsReadWithEachNumberOfIdleConnections(t *testing.T) {
	at, requests, err := memoryAt(t.Context(), new(net.Dialer), idling(t, true), 0, 0, 3, 5)
	if err != nil || len(at) != 3 || requests != 10 {
		t.Fatalf("%+v, %d, %v", at, requests, err)
	}
	for _, u := range at {
		if u.RSS <= 0 || u.Anonymous <= 0 {
			t.Errorf("%+v", u)
		}
	}
}

func TestAConnectionThatDoesNotStayIsNoIdleOne(t *testing.T) {
	_, _, err := memoryAt(t.Context(), new(net.Dialer), idling(t, false), 0, 2)
	if err == nil || !strings.Contains(err.Error(), "connection 1, after it was idle") {
		t.Error(err)
	}
}
