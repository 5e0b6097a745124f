// SPDX-License-Identifier: Apache-2.0

package auth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"
	"golang.org/x/sync/singleflight"

	"github.com/connectsoft/plumbline/desired"
)

// keySource answers with the keys that may have signed a token. The generation changes when a key is no longer
// valid, so that what was verified with it is judged again.
type keySource interface {
	keys(ctx context.Context, kid string) ([]jose.JSONWebKey, error)
	generation() uint64
}

// fixedKeys are the development issuer's.
type fixedKeys []jose.JSONWebKey

func (k fixedKeys) keys(_ context.Context, kid string) ([]jose.JSONWebKey, error) {
	return matching(k, kid), nil
}

func (k fixedKeys) generation() uint64 { return 0 }

// How often the keys of an issuer are fetched.
const (
	keysFresh   = time.Hour        // fetched again after this
	keysStale   = 24 * time.Hour   // without the issuer's answer, kept in use this long
	keysRetry   = 10 * time.Second // least time between two fetches, whatever tokens arrive
	keysTimeout = 10 * time.Second // of one fetch
	maxKeyBytes = 1 << 20
)

// remoteKeys are those that an issuer publishes: found by discovery, fetched on demand by one caller at a time,
// fetched again for an unknown key id, but never more often than keysRetry.
type remoteKeys struct {
	issuer string
	client *http.Client
	now    func() time.Time
	group  singleflight.Group

	mu      sync.Mutex // guards what follows
	set     []jose.JSONWebKey
	gen     uint64
	fetched time.Time // of set
	tried   time.Time
	failure error
}

func (k *remoteKeys) generation() uint64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.gen
}

func (k *remoteKeys) keys(ctx context.Context, kid string) ([]jose.JSONWebKey, error) {
	found, due, err := k.cached(kid)
	if !due {
		return found, err
	}
	// The fetch serves every caller that waits for it, so it must not end with the one that began it.
	fetch := k.group.DoChan("keys", func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), keysTimeout)
		defer cancel()
		set, err := k.fetch(ctx)
		k.store(set, err)
		return nil, nil
	})
	select {
	case <-fetch:
	case <-ctx.Done():
		return nil, desired.E("fetch issuer keys", desired.Ref{}, desired.Transient, context.Cause(ctx))
	}
	found, _, err = k.cached(kid)
	return found, err
}

// cached answers from memory; due says that a fetch may help.
func (k *remoteKeys) cached(kid string) (found []jose.JSONWebKey, due bool, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.now()
	age := now.Sub(k.fetched)
	if !k.fetched.IsZero() && age < keysStale {
		found = matching(k.set, kid)
	}
	due = (len(found) == 0 || age >= keysFresh) && (k.tried.IsZero() || now.Sub(k.tried) >= keysRetry)
	if len(found) == 0 && k.failure != nil {
		err = &desired.Error{
			Class: desired.Transient, Op: "fetch issuer keys", After: keysRetry,
			Err: errors.New("the keys of the token issuer cannot be fetched at the moment: try again"),
		}
	}
	return found, due, err
}

func (k *remoteKeys) store(set []jose.JSONWebKey, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.tried, k.failure = k.now(), err
	if err != nil {
		return
	}
	for _, old := range k.set {
		if len(matching(set, old.KeyID)) == 0 {
			k.gen++
			break
		}
	}
	k.set, k.fetched = set, k.tried
}

// fetch reads the discovery document, whose issuer must be the configured one, and the keys that it names.
func (k *remoteKeys) fetch(ctx context.Context) ([]jose.JSONWebKey, error) {
	p, err := oidc.NewProvider(oidc.ClientContext(ctx, k.client), k.issuer)
	if err != nil {
		return nil, fmt.Errorf("discover issuer: %w", err)
	}
	var doc struct {
		JWKS string `json:"jwks_uri"`
	}
	if err := p.Claims(&doc); err != nil {
		return nil, fmt.Errorf("read discovery document: %w", err)
	}
	if !sameOrSafer(k.issuer, doc.JWKS) {
		return nil, errors.New("discovery document: jwks_uri must use https")
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, doc.JWKS, nil)
	if err != nil {
		return nil, err
	}
	res, err := k.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("fetch keys: status %d", res.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, maxKeyBytes))
	if err != nil {
		return nil, err
	}
	return readKeys(body)
}

// readKeys keeps the public signing keys of a set. Members that cannot be understood are skipped, as RFC 7517 asks.
func readKeys(body []byte) ([]jose.JSONWebKey, error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(body, &set); err != nil {
		return nil, fmt.Errorf("read key set: %w", err)
	}
	var out []jose.JSONWebKey
	for _, raw := range set.Keys {
		var k jose.JSONWebKey
		if k.UnmarshalJSON(raw) != nil || !k.Valid() || !k.IsPublic() || k.Use != "" && k.Use != "sig" {
			continue
		}
		out = append(out, k)
	}
	if len(out) == 0 {
		return nil, errors.New("read key set: it has no usable signing key")
	}
	return out, nil
}

// sameOrSafer demands https of the key address unless the issuer itself was configured without.
func sameOrSafer(issuer, keys string) bool {
	i, err1 := url.Parse(issuer)
	k, err2 := url.Parse(keys)
	if err1 != nil || err2 != nil || k.Host == "" || k.User != nil {
		return false
	}
	return k.Scheme == "https" || k.Scheme == "http" && i.Scheme == "http" && i.Host == k.Host
}

// matching returns the keys with the id; a token without one may be signed by any.
func matching(set []jose.JSONWebKey, kid string) []jose.JSONWebKey {
	if kid == "" {
		return set
	}
	for i := range set {
		if set[i].KeyID == kid {
			return set[i : i+1]
		}
	}
	return nil
}
