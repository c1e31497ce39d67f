// Package meshctl is the command line for people: it asks the control plane's API,
// over gRPC, and that of sagas over HTTP, and shows the answers as tables, JSON or YAML.
//
// What comes over the network is quoted in tables where it could move the
// terminal's cursor; JSON and YAML have their own quoting.
package meshctl
