package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"time"
)

// statusError is an answer that is not 200.
type statusError struct {
	what       string
	status     int
	retryAfter string
	body       []byte
}

func (e *statusError) Error() string {
	return fmt.Sprintf("%s: %d: %s", e.what, e.status, e.body[:min(len(e.body), 300)])
}

// ask sends a request and returns the body of the answer, which is 200; else the error is a *statusError.
func ask(ctx context.Context, client *http.Client, method, url string, body []byte) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	a, err := client.Do(r)
	if err != nil {
		return nil, err
	}
	defer func() { _ = a.Body.Close() }()
	answer, err := io.ReadAll(a.Body)
	if err == nil && a.StatusCode != http.StatusOK {
		err = &statusError{method + " " + url, a.StatusCode, a.Header.Get("Retry-After"), answer}
	}
	return answer, err
}

// newClient keeps a connection for each of so many who ask at once.
func newClient(atOnce int) *http.Client {
	return &http.Client{Timeout: time.Minute, Transport: &http.Transport{MaxIdleConnsPerHost: atOnce, MaxConnsPerHost: atOnce}}
}
