// SPDX-License-Identifier: Apache-2.0

package auth

import (
	"crypto/sha256"
	"sync"
	"time"
)

// tokenCache remembers verified tokens by their hash. It is two generations of at most half its size each: when
// the younger one is full the older one is dropped, so a flood of tokens costs memory that is bounded.
type tokenCache struct {
	half int

	mu         sync.Mutex
	young, old map[[sha256.Size]byte]verified
}

// verified is a judged token. It is good until the earlier of the token's end and the next look at the keys.
type verified struct {
	principal *Principal
	until     time.Time
	source    keySource
	gen       uint64
}

const (
	cacheSize  = 16384
	recheckAll = 10 * time.Minute // a verdict is not believed longer than this
)

func newTokenCache(size int) *tokenCache {
	return &tokenCache{half: size / 2, young: map[[sha256.Size]byte]verified{}}
}

func (c *tokenCache) get(sum [sha256.Size]byte, now time.Time) (*Principal, bool) {
	c.mu.Lock()
	v, ok := c.young[sum]
	if !ok {
		if v, ok = c.old[sum]; ok {
			c.insert(sum, v)
		}
	}
	c.mu.Unlock()
	if !ok || !now.Before(v.until) || v.source.generation() != v.gen {
		return nil, false
	}
	return v.principal, true
}

func (c *tokenCache) put(sum [sha256.Size]byte, v verified) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.insert(sum, v)
}

func (c *tokenCache) insert(sum [sha256.Size]byte, v verified) {
	if len(c.young) >= c.half {
		c.old, c.young = c.young, make(map[[sha256.Size]byte]verified, c.half/4)
	}
	c.young[sum] = v
}
