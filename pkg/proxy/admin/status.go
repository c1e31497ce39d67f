package admin

import (
	"net/netip"
	"time"
)

// ClusterStatus is what /clusters shows of one cluster.
type ClusterStatus struct {
	Name   string       `json:"name"`
	Policy string       `json:"lb_policy"` // as LEAST_REQUEST
	Hosts  []HostStatus `json:"host_statuses"`
}

// HostStatus is what /clusters shows of one host.
type HostStatus struct {
	Address  netip.AddrPort `json:"address"`
	Instance string         `json:"instance"` // its id, "" in static configuration
	Zone     string         `json:"zone"`
	Weight   uint32         `json:"weight"`
	Health   string         `json:"health"` // as HEALTHY

	Active          int    `json:"rq_active"` // requests under way
	Requests        uint64 `json:"rq_total"`  // ever begun
	Failures        uint64 `json:"rq_error"`  // of them, those that counted as failed
	IdleConnections int    `json:"cx_idle"`   // kept for the next request

	// Breaker is the state of the host's circuit breaker, as closed; "" if
	// breaking is off.
	Breaker             string `json:"breaker"`
	ConsecutiveFailures int    `json:"consecutive_failures"` // in a row, while closed
	// ReadyAt is when the breaker lets a probe through, zero if requests may pass.
	ReadyAt time.Time `json:"ready_at,omitzero"`
}

// ListenerStatus is what /listeners shows of one listener.
type ListenerStatus struct {
	Name        string `json:"name"`          // as outbound
	Address     string `json:"local_address"` // host:port
	Connections int64  `json:"connections"`   // open now
}

// CertStatus is what /certs shows of one certificate in use.
type CertStatus struct {
	Used            string    `json:"used_by"` // as listener web
	File            string    `json:"file"`
	Authority       bool      `json:"authority,omitempty"` // it verifies peers, and is not shown to them
	SubjectAltNames []string  `json:"subject_alt_names"`
	SerialNumber    string    `json:"serial_number"`
	ValidFrom       time.Time `json:"valid_from"`
	ExpirationTime  time.Time `json:"expiration_time"`
	DaysLeft        float64   `json:"days_until_expiration"`
	// Refused says why the file as it is now could not be taken.
	Refused string `json:"refused,omitempty"`
}

// drainStatus is what /drain shows.
type drainStatus struct {
	Draining bool      `json:"draining"`
	Since    time.Time `json:"since,omitzero"`
}
