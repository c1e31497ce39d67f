package store

import (
	"fmt"
	"strings"
	"time"
)

// Txn is a transaction: if every compare of If holds, every operation of Then happens, at one revision; otherwise nothing does.
// An empty If always holds.
type Txn struct {
	If   []Compare
	Then []Op
}

// TxnResult is the outcome of a transaction that the store decided.
type TxnResult struct {
	// Held says whether the compares held, and so whether the operations happened.
	Held bool
	// Revision is that of the write, or, if nothing was written, the newest at the time of the decision.
	Revision int64
}

// Target is what a Compare looks at.
type Target uint8

// The targets of a Compare.
const (
	TargetCreateRevision Target = iota + 1
	TargetModRevision
	TargetValue
	TargetExists
)

// Compare is a condition on one key. Make it with Absent, Exists, CreatedAt, ModifiedAt or ValueIs.
type Compare struct {
	Key      string
	Target   Target
	Revision int64  // for TargetCreateRevision and TargetModRevision; 0 means that the key is absent
	Value    []byte // for TargetValue
}

// Absent holds if the key does not exist.
func Absent(key string) Compare { return Compare{Key: key, Target: TargetCreateRevision} }

// Exists holds if the key exists.
func Exists(key string) Compare { return Compare{Key: key, Target: TargetExists} }

// CreatedAt holds if the key exists and was created at the revision, so that a deletion and re-creation in between is noticed
// while updates are not. Revision 0 is Absent.
func CreatedAt(key string, revision int64) Compare {
	return Compare{Key: key, Target: TargetCreateRevision, Revision: revision}
}

// ModifiedAt holds if the key was last written at the revision. Revision 0 is Absent.
func ModifiedAt(key string, revision int64) Compare {
	return Compare{Key: key, Target: TargetModRevision, Revision: revision}
}

// ValueIs holds if the key exists and has exactly this value.
func ValueIs(key string, value []byte) Compare {
	return Compare{Key: key, Target: TargetValue, Value: value}
}

// OpKind is what an Op does.
type OpKind uint8

// The kinds of Op.
const (
	OpPut OpKind = iota + 1
	OpDelete
	OpDeletePrefix
)

// Op is one operation of a transaction. Make it with Put, PutLeased, Delete or DeletePrefix.
type Op struct {
	Kind  OpKind
	Key   string // the prefix for OpDeletePrefix
	Value []byte
	Lease LeaseID // for OpPut; 0 detaches the key from the lease it may have had
}

// Put writes a key that belongs to no lease.
func Put(key string, value []byte) Op { return Op{Kind: OpPut, Key: key, Value: value} }

// PutLeased writes a key that is deleted when the lease ends. The transaction fails with ErrLeaseNotFound if the lease is not
// alive.
func PutLeased(key string, value []byte, lease LeaseID) Op {
	return Op{Kind: OpPut, Key: key, Value: value, Lease: lease}
}

// Delete deletes a key; deleting an absent key does nothing.
func Delete(key string) Op { return Op{Kind: OpDelete, Key: key} }

// DeletePrefix deletes all keys that start with prefix. End it with "/" to mean a folder.
func DeletePrefix(prefix string) Op { return Op{Kind: OpDeletePrefix, Key: prefix} }

// deletes reports whether the operation would delete key.
func (o Op) deletes(key string) bool {
	switch o.Kind {
	case OpDelete:
		return o.Key == key
	case OpDeletePrefix:
		return strings.HasPrefix(key, o.Key)
	}
	return false
}

// Validate returns ErrInvalid for a transaction that no store would accept (a key outside Root, a key written twice or both
// written and deleted, more than MaxTxnOps) and ErrTooLarge for one beyond MaxRequestBytes. Stores call it before sending.
func (t Txn) Validate() error {
	if len(t.Then) == 0 {
		return fmt.Errorf("%w: transaction without an operation", ErrInvalid)
	}
	if len(t.If) > MaxTxnOps || len(t.Then) > MaxTxnOps {
		return fmt.Errorf("%w: %d compares and %d operations; the limit of each is %d", ErrInvalid, len(t.If), len(t.Then), MaxTxnOps)
	}
	for _, c := range t.If {
		if err := c.validate(); err != nil {
			return err
		}
	}
	for _, o := range t.Then {
		if err := o.validate(); err != nil {
			return err
		}
	}
	if err := checkDistinct(t.Then); err != nil {
		return err
	}
	if n := t.size(); n > MaxRequestBytes {
		return fmt.Errorf("%w: transaction of %d bytes; the limit is %d", ErrTooLarge, n, MaxRequestBytes)
	}
	return nil
}

func (t Txn) size() int {
	n := (len(t.If) + len(t.Then)) * RequestOverhead
	for _, c := range t.If {
		n += len(c.Key) + len(c.Value)
	}
	for _, o := range t.Then {
		n += len(o.Key) + len(o.Value)
	}
	return n
}

func (c Compare) validate() error {
	if c.Target < TargetCreateRevision || c.Target > TargetExists {
		return fmt.Errorf("%w: compare of key %q has no target", ErrInvalid, c.Key)
	}
	if c.Revision < 0 {
		return fmt.Errorf("%w: compare of key %q with negative revision %d", ErrInvalid, c.Key, c.Revision)
	}
	return CheckKey(c.Key)
}

func (o Op) validate() error {
	switch o.Kind {
	case OpPut, OpDelete:
		return CheckKey(o.Key)
	case OpDeletePrefix:
		return CheckPrefix(o.Key)
	}
	return fmt.Errorf("%w: operation on key %q has no kind", ErrInvalid, o.Key)
}

// checkDistinct refuses what etcd refuses as "duplicate key given in txn request": each key changes at most once per revision,
// which is what lets a Batch be unordered.
func checkDistinct(ops []Op) error {
	puts := make(map[string]struct{}, len(ops))
	for _, o := range ops {
		if o.Kind != OpPut {
			continue
		}
		if _, twice := puts[o.Key]; twice {
			return fmt.Errorf("%w: key %q is written twice", ErrInvalid, o.Key)
		}
		puts[o.Key] = struct{}{}
	}
	for _, o := range ops {
		for key := range puts {
			if o.deletes(key) {
				return fmt.Errorf("%w: key %q is written and deleted", ErrInvalid, key)
			}
		}
	}
	return nil
}

// CheckKey returns ErrInvalid unless key lies under Root, is more than Root, and has at most MaxKeyBytes.
func CheckKey(key string) error {
	if key == Root {
		return fmt.Errorf("%w: key %q names nothing", ErrInvalid, key)
	}
	return CheckPrefix(key)
}

// CheckPrefix returns ErrInvalid unless prefix starts with Root and has at most MaxKeyBytes.
func CheckPrefix(prefix string) error {
	if len(prefix) > MaxKeyBytes {
		return fmt.Errorf("%w: key of %d bytes; the limit is %d", ErrInvalid, len(prefix), MaxKeyBytes)
	}
	if !strings.HasPrefix(prefix, Root) {
		return fmt.Errorf("%w: key %q is not under %q", ErrInvalid, prefix, Root)
	}
	return nil
}

// Validate returns the request with its defaults filled in, or ErrInvalid.
func (r ListRequest) Validate() (ListRequest, error) {
	if err := CheckPrefix(r.Prefix); err != nil {
		return r, err
	}
	if r.After != "" && !strings.HasPrefix(r.After, r.Prefix) {
		return r, fmt.Errorf("%w: page after %q, which is not under %q", ErrInvalid, r.After, r.Prefix)
	}
	if r.Revision < 0 {
		return r, fmt.Errorf("%w: negative revision %d", ErrInvalid, r.Revision)
	}
	if r.Limit < 0 || r.Limit > MaxPageSize {
		return r, fmt.Errorf("%w: page of %d entries; the limit is %d", ErrInvalid, r.Limit, MaxPageSize)
	}
	if r.Limit == 0 {
		r.Limit = DefaultPageSize
	}
	return r, nil
}

// CheckWatch returns ErrInvalid for what no store can watch.
func CheckWatch(prefix string, from int64) error {
	if from < 0 {
		return fmt.Errorf("%w: watch from negative revision %d", ErrInvalid, from)
	}
	return CheckPrefix(prefix)
}

// CheckTTL returns ttl rounded up to whole seconds, or ErrInvalid if it is not within 1 s and MaxTTL.
func CheckTTL(ttl time.Duration) (time.Duration, error) {
	if ttl < time.Second || ttl > MaxTTL {
		return 0, fmt.Errorf("%w: lease of %v; it must be within 1 s and %v", ErrInvalid, ttl, MaxTTL)
	}
	return (ttl + time.Second - 1).Truncate(time.Second), nil
}
