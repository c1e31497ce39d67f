// Package etcdembed runs a single etcd member inside the process: the store of a control plane that was not pointed at a
// cluster.
//
// It is durable (fsync on, history compacted, size bounded), and it is not highly available: for that, run an etcd cluster and
// use etcdstore. It listens on a Unix socket that only its own user can open, and on no TCP port unless Config.Listen asks for a
// loopback one for etcdctl.
//
// Layout of the data directory (0700): "lock" is held while the server runs, "etcd" is etcd's own, "run/etcd.sock" the
// socket. Restoring a backup means replacing "etcd" while the server is stopped.
//
// Server owns all goroutines; Stop ends them and waits. Two things are beyond it: etcd panics, ending the process, when its own
// invariants break; and a fatal error of etcd (the disk fails) ends the goroutine that met it, is reported by Server.Err, and
// leaves a server that can only be stopped.
package etcdembed
