// SPDX-License-Identifier: Apache-2.0

package state

import (
	"fmt"
	"strings"
	"time"

	"github.com/connectsoft/plumbline/desired"
)

// root is where every key of this installation lives. Keys that belong to no tenant lie under "~", which no tenant
// can be called.
const (
	root     = "/plumbline/v1/"
	epochKey = root + "~/epoch"
	unitRoot = root + "~/units/"
)

// What one transaction may hold; etcd's own limits are 128 operations and 1.5 MiB with its framing.
const (
	maxOps   = 128
	maxBytes = 1280 << 10
)

// progressEvery is how often a watch reports how far it is when nothing happens.
const progressEvery = 5 * time.Second

// Platform is how the platform's tenant is written in keys and items.
const Platform = "-"

// tenantOf gives the written form of a tenant name.
func tenantOf(tenant string) string {
	if tenant == "" {
		return Platform
	}
	return tenant
}

// String is the key as the store spells it.
func (k Key) String() string {
	return root + tenantOf(k.Tenant) + "/" + string(k.Table) + "/" + k.ID
}

// prefix reports whether the key addresses every record whose ID begins with its own.
func (k Key) prefix() bool { return strings.HasSuffix(k.ID, ".") }

// parseKey reads a stored key; ok is false for keys that are no records.
func parseKey(s string) (k Key, ok bool) {
	rest, ok := strings.CutPrefix(s, root)
	if !ok || strings.HasPrefix(rest, "~") {
		return Key{}, false
	}
	tenant, rest, ok1 := strings.Cut(rest, "/")
	table, id, ok2 := strings.Cut(rest, "/")
	return Key{Tenant: tenant, Table: Table(table), ID: id}, ok1 && ok2 && id != ""
}

// check refuses keys that would address something else than one record (or, for reads, one prefix).
func (k Key) check(write bool) error {
	switch {
	case strings.ContainsAny(k.Tenant, "/~"), k.Table == "", strings.Contains(string(k.Table), "/"),
		k.ID == "", strings.Contains(k.ID, "/"):
		return fmt.Errorf("key %q is malformed: tenant, table and id are needed, without slashes", k)
	case write && k.prefix():
		return fmt.Errorf("key %q ends with a dot: such ids only address prefixes in reads", k)
	}
	return nil
}

// split cuts puts into transactions that etcd accepts, in order.
func split(fenced bool, puts []Put) ([][]Put, error) {
	seen := make(map[Key]bool, len(puts))
	compares := 0
	if fenced {
		compares = 1
	}
	var parts [][]Put
	start, bytes, conds := 0, 0, compares
	for i, p := range puts {
		k := Key{tenantOf(p.Key.Tenant), p.Key.Table, p.Key.ID}
		size := len(p.Value) + len(k.String())
		switch err := k.check(true); {
		case err != nil:
			return nil, desired.E("commit records", desired.Ref{}, desired.Invalid, err)
		case seen[k]:
			return nil, desired.Errorf("commit records", desired.Ref{}, desired.Invalid, "key %q is written twice in one commit", k)
		case size > maxBytes:
			return nil, desired.Errorf("commit records", desired.Ref{}, desired.Invalid, "record %q has %d bytes; %d is the most that is stored", k, size, maxBytes)
		}
		seen[k] = true
		cond := 0
		if p.IfRev != nil {
			cond = 1
		}
		if i-start == maxOps || bytes+size > maxBytes || conds+cond > maxOps {
			parts = append(parts, puts[start:i])
			start, bytes, conds = i, 0, compares
		}
		bytes, conds = bytes+size, conds+cond
	}
	return append(parts, puts[start:]), nil
}

func fencedError(unit string) error {
	return desired.Errorf("commit records", desired.Ref{}, desired.Conflict, "unit %q: %w; its new owner goes on", unit, ErrFenced)
}

func conflictError() error {
	return desired.Errorf("commit records", desired.Ref{}, desired.Conflict, "%w; read it again and decide anew", ErrConflict)
}

func compactedError(op string, rev, compacted int64) error {
	return desired.Errorf(op, desired.Ref{}, desired.Conflict, "%w: history before revision %d is gone, %d was asked for; list again", ErrCompacted, compacted, rev)
}

func futureError(op string, rev, now int64) error {
	return desired.Errorf(op, desired.Ref{}, desired.Conflict, "%w: the store is at revision %d and never was at %d; list again", ErrCompacted, now, rev)
}

func closedError(op string) error {
	return desired.Errorf(op, desired.Ref{}, desired.Transient, "the state store is closed")
}
