package controlplane_test

import (
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"
)

// ownMounts is the environment variable by which a test knows that it runs with mounts of its own.
const ownMounts = "FAIRLEAD_TEST_OWN_MOUNTS"

// mountDisk mounts a disk of so many MiB, or makes one that is mounted so large.
func mountDisk(t *testing.T, dir string, size int, flags uintptr) {
	t.Helper()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", flags, fmt.Sprintf("size=%dm", size)); err != nil {
		t.Fatal(err)
	}
}

func TestADiskThatIsNearlyFullTakesNoSagasAndEndsNothing(t *testing.T) {
	if !inOwnNamespace(t, ownMounts, syscall.CLONE_NEWNS) {
		return
	}
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	config := loopbackConfig(t)
	mountDisk(t, config.DataDir, 300, 0)
	t.Cleanup(func() { _ = syscall.Unmount(config.DataDir, syscall.MNT_DETACH) })
	ask, _ := startSagas(t, config)
	start := func(id string) (int, string) {
		t.Helper()
		return ask("POST", "/v1/sagas", `{"id":"`+id+`","steps":[{"name":"a","action":{"service":"orders","path":"/"}}]}`)
	}
	if status, body := start("first"); status != http.StatusTooManyRequests || !strings.Contains(body, "--data-dir") {
		t.Errorf("the first, without room for its store: %d %s", status, body)
	}
	mountDisk(t, config.DataDir, 2000, syscall.MS_REMOUNT)
	if status, body := start("second"); status != http.StatusOK {
		t.Errorf("with room: %d %s", status, body)
	}
	mountDisk(t, config.DataDir, 400, syscall.MS_REMOUNT)
	number := 0
	eventually(t, "no more are taken", func() bool {
		number++
		status, _ := start(fmt.Sprint("more-", number))
		return status == http.StatusTooManyRequests
	})
	if status, body := ask("GET", "/v1/sagas/second", ""); status != http.StatusOK {
		t.Errorf("the one that was taken: %d %s", status, body)
	}
	mountDisk(t, config.DataDir, 2000, syscall.MS_REMOUNT)
	eventually(t, "others are taken", func() bool {
		status, _ := start("other")
		return status == http.StatusOK
	})
	if status, body := ask("POST", "/v1/namespaces/default/services/orders/instances", `{"id":"a1","address":"127.0.0.1","ports":[{"number":1}]}`); status != http.StatusOK {
		t.Errorf("the registry: %d %s", status, body)
	}
}
