package controlplane

import (
	"context"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/fairlead-mesh/fairlead/pkg/store"
)

// sagaReserve is what stays free of the disk of the embedded etcd of sagas for what is written without a new saga: its write-ahead log is of files of 64 MiB, of which
// there may be three more than at its start. An etcd that finds no room on its disk ends, and this process with it; and the mesh's is likely on the same disk.
const sagaReserve = 256 << 20

// onDisk is a store whose quota is no more than its disk has room for.
type onDisk struct {
	store.Store
	dir string
}

// Size implements store.Store.
func (d onDisk) Size(ctx context.Context) (store.Size, error) {
	size, err := d.Store.Size(ctx)
	if err != nil {
		return size, err
	}
	free, err := freeAt(d.dir)
	if err != nil {
		return size, err
	}
	size.Quota = max(1, min(size.Quota, size.Bytes+free-sagaReserve)) // 0 would be none
	return size, nil
}

// defragmenting is a defragmentation, which writes all that is in use once more, and so waits until there is room for that.
func (d onDisk) defragmenting(defragment func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		size, err := d.Store.Size(ctx)
		if err != nil {
			return err
		}
		free, err := freeAt(d.dir)
		if err != nil {
			return err
		}
		if free < size.InUse+sagaReserve/2 {
			return fmt.Errorf("%s has %d MiB free, which is too little to write the %d MiB that are in use once more: make room on that disk", d.dir, free>>20, size.InUse>>20)
		}
		return defragment(ctx)
	}
}

// freeAt returns how many bytes are free on the disk of a directory that is there, or in one that is.
func freeAt(dir string) (int64, error) {
	var disk unix.Statfs_t
	if err := unix.Statfs(dir, &disk); err != nil {
		return 0, &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	return int64(disk.Bavail) * int64(disk.Bsize), nil //nolint:gosec,unconvert // their types differ between systems
}
