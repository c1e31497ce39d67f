package sidecar

import (
	"time"

	"github.com/fairlead-mesh/fairlead/pkg/metrics"
	"github.com/fairlead-mesh/fairlead/pkg/proxy/admin"
)

// certStatus lists the certificates in force of all listeners and clusters.
func (s *sidecar) certStatus() []admin.CertStatus {
	var all []admin.CertStatus
	now := time.Now()
	for _, one := range s.tls.Status() {
		refused := ""
		if one.Err != nil {
			refused = one.Err.Error()
		}
		for _, c := range one.Certificates {
			all = append(all, admin.CertStatus{
				Used: one.Name, File: c.File, Authority: c.Authority,
				SubjectAltNames: c.Names, SerialNumber: c.Serial, ValidFrom: c.NotBefore, ExpirationTime: c.NotAfter,
				DaysLeft: c.DaysLeft(now), Refused: refused,
			})
		}
	}
	return all
}

// observeTLS makes the metrics of handshakes and of the files of certificates.
func (s *sidecar) observeTLS() {
	s.metrics.Collect("fairlead_tls_handshakes_total", "TLS handshakes that ended: ok, resumed, or why they failed.", metrics.KindCounter,
		[]string{"tls", "result"}, func(emit metrics.Emit) {
			for _, one := range s.tls.Status() {
				for result, n := range one.Handshakes {
					emit(float64(n), one.Name, result)
				}
			}
		})
	s.metrics.Collect("fairlead_tls_handshakes_waiting", "TLS handshakes that could go on, and wait until others are done.", metrics.KindGauge,
		nil, func(emit metrics.Emit) { emit(float64(s.tls.Waiting())) })
	s.metrics.Collect("fairlead_tls_certificate_days_left", "Days until a certificate in force expires; negative once it has.", metrics.KindGauge,
		[]string{"tls", "file"}, func(emit metrics.Emit) {
			now, told := time.Now(), map[[2]string]bool{}
			for _, one := range s.tls.Status() {
				for _, c := range one.Certificates {
					if key := [2]string{one.Name, c.File}; !told[key] { // a file may be named twice, and values are added up
						told[key] = true
						emit(c.DaysLeft(now), one.Name, c.File)
					}
				}
			}
		})
	s.metrics.Collect("fairlead_tls_reloads_total", "Changes of certificate files that were taken.", metrics.KindCounter,
		[]string{"tls"}, func(emit metrics.Emit) {
			for _, one := range s.tls.Status() {
				emit(float64(one.Reloads), one.Name)
			}
		})
	s.metrics.Collect("fairlead_tls_reload_failing", "1 while certificate files cannot be taken as they are, and those loaded before stay in force.", metrics.KindGauge,
		[]string{"tls"}, func(emit metrics.Emit) {
			for _, one := range s.tls.Status() {
				failing := 0.0
				if one.Err != nil {
					failing = 1
				}
				emit(failing, one.Name)
			}
		})
}
