// SPDX-License-Identifier: Apache-2.0

package api

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/connectsoft/plumbline/desired"
)

const (
	defaultPage = 100
	maxPage     = 1000
	maxPins     = 256 // heads kept for lists that go on
	pinTime     = 10 * time.Minute
)

// page is where a list goes on.
type page struct {
	size   int
	after  string // key of the last item before it
	commit string // of the head that the list began at; "" = a new list
	filter string // hash of the filters that the token was made for
}

// pageToken is the inside of a token. It is not secret: it names nothing that its caller was not shown.
type pageToken struct {
	Commit string `json:"c"`
	After  string `json:"a"`
	Filter string `json:"f"`
}

// readPage reads pageSize and pageToken.
func readPage(op string, q url.Values) (page, error) {
	p := page{size: defaultPage, filter: filterHash(op, q)}
	if v := q.Get("pageSize"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil || n < 1 {
			return page{}, invalid("read page", desired.FieldError{Pointer: "pageSize", Detail: "must be a number from 1 to " + strconv.Itoa(maxPage)})
		}
		p.size = min(n, maxPage)
	}
	v := q.Get("pageToken")
	if v == "" {
		return p, nil
	}
	var t pageToken
	raw, err := base64.RawURLEncoding.DecodeString(v)
	if err != nil || json.Unmarshal(raw, &t) != nil {
		return page{}, invalid("read page", desired.FieldError{Pointer: "pageToken", Detail: "is not a nextPageToken of this operation: begin the list again without it"})
	}
	if t.Filter != p.filter {
		return page{}, invalid("read page", desired.FieldError{Pointer: "pageToken", Detail: "was made for other filters: keep them, or begin the list again without it"})
	}
	p.after, p.commit = t.After, t.Commit
	return p, nil
}

func (p page) next(commit, after string) string {
	raw, _ := json.Marshal(pageToken{commit, after, p.filter}) // three strings always encode
	return base64.RawURLEncoding.EncodeToString(raw)
}

// filterHash binds a token to its operation and filters; the page size may change on the way.
func filterHash(op string, q url.Values) string {
	f := url.Values{}
	for k, v := range q {
		if k != "pageToken" && k != "pageSize" && k != "minCommit" {
			f[k] = v
		}
	}
	sum := sha256.Sum256([]byte(op + "?" + f.Encode()))
	return hex.EncodeToString(sum[:8])
}

// list reads a filter that may be repeated or hold several values with commas; nil = no filter.
func list(q url.Values, name string) map[string]bool {
	var out map[string]bool
	for _, v := range q[name] {
		for _, one := range strings.Split(v, ",") {
			if one = strings.TrimSpace(one); one != "" {
				if out == nil {
					out = map[string]bool{}
				}
				out[one] = true
			}
		}
	}
	return out
}

// pins keeps the heads of lists that go on, so that all pages of a list show one commit. Snapshots share what they
// have in common, so a pin costs what changed since.
type pins struct {
	now func() time.Time

	mu    sync.Mutex
	heads map[pinKey]pin
}

type pinKey struct{ tenant, commit string }

type pin struct {
	head *desired.Head
	used time.Time
}

func newPins(now func() time.Time) *pins { return &pins{now: now, heads: map[pinKey]pin{}} }

func (p *pins) keep(tenant string, h *desired.Head) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	p.heads[pinKey{tenant, h.Commit}] = pin{h, now}
	if len(p.heads) <= maxPins {
		return
	}
	var oldest pinKey
	at := now
	for k, v := range p.heads {
		if !v.used.After(at) {
			oldest, at = k, v.used
		}
	}
	delete(p.heads, oldest)
}

// find returns the head that a list began at. A list that paused for too long has to begin again.
func (p *pins) find(tenant string, current *desired.Head, commit string) (*desired.Head, error) {
	if commit == "" || commit == current.Commit {
		return current, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	k := pinKey{tenant, commit}
	found, ok := p.heads[k]
	if !ok || p.now().Sub(found.used) > pinTime {
		delete(p.heads, k)
		return nil, faultf(CodeStaleToken, "read page", "the list that this pageToken belongs to is no longer held: begin it again without the token")
	}
	found.used = p.now()
	p.heads[k] = found
	return found.head, nil
}
