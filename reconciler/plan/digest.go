// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strings"

	"github.com/connectsoft/plumbline/adapters"
)

// change is what a plan digest is made of: what is to happen, not when, and not from which state.
type change struct {
	Ref     string      `json:"ref"`
	Op      adapters.Op `json:"op"`
	Desired string      `json:"desired,omitempty"`
	Delete  bool        `json:"delete,omitempty"`
}

// Digest is the digest of the changes of plans, in any order: SHA-256 over their canonical list of ref, operation,
// desired document and deletion. Times and observed values do not count, so an approval of it stays valid while only
// those move, and is void as soon as something else would be done.
func Digest(plans ...Plan) string {
	var list []change
	for _, p := range plans {
		for _, s := range p.Changes {
			list = append(list, change{Ref: p.Ref.String(), Op: s.Op, Desired: p.Desired, Delete: s.Op == adapters.Remove})
		}
	}
	slices.SortFunc(list, func(a, b change) int { return strings.Compare(a.Ref+"\x00"+string(a.Op), b.Ref+"\x00"+string(b.Op)) })
	sum := sha256.Sum256([]byte(encode(list)))
	return "sha256:" + hex.EncodeToString(sum[:])
}

// encode renders plain data that always can be encoded.
func encode(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return "unencodable: " + err.Error()
	}
	return string(b)
}

func decode(data []byte, v any) error { return json.Unmarshal(data, v) }
