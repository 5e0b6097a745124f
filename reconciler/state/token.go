// SPDX-License-Identifier: Apache-2.0

package state

import (
	"strconv"
	"strings"

	"github.com/connectsoft/plumbline/desired"
)

// Token is a resume token: installation epoch + revision.
type Token struct {
	Epoch string
	Rev   int64
}

// String renders the token; ParseToken reads it.
func (t Token) String() string { return t.Epoch + "." + strconv.FormatInt(t.Rev, 10) }

// ParseToken reads a resume token; a malformed one is a desired.Error of class Invalid.
func ParseToken(s string) (Token, error) {
	epoch, digits, ok := strings.Cut(s, ".")
	rev, err := strconv.ParseInt(digits, 10, 64)
	t := Token{Epoch: epoch, Rev: rev}
	// Rendering it again must give the same text: no signs, spaces or leading zeros.
	if !ok || err != nil || rev < 0 || len(epoch) > 64 || !isWord(epoch) || t.String() != s {
		return Token{}, desired.Errorf("parse resume token", desired.Ref{}, desired.Invalid,
			"the resume token is malformed; pass one that a stream gave, or none to start with the full list")
	}
	return t, nil
}

func isWord(s string) bool {
	for _, r := range s {
		if (r < 'a' || r > 'z') && (r < '0' || r > '9') {
			return false
		}
	}
	return s != ""
}
