//go:build !(linux && (amd64 || arm64))

package tcp

import "syscall"

// pipe is what only Linux has.
type pipe struct{}

func (*pipe) fill(uintptr) (int, syscall.Errno)       { return 0, syscall.ENOSYS }
func (*pipe) drain(uintptr, int) (int, syscall.Errno) { return 0, syscall.ENOSYS }

type pipes struct{ limit int }

func (*pipes) get() *pipe { return nil }
func (*pipes) put(*pipe)  {}
func (*pipes) drop(*pipe) {}
func (*pipes) close()     {}
