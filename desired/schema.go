// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"embed"
	"strings"
)

// The schemas are made from the types by TestSchemas (go test ./desired -run Schemas -rewrite), which also says when
// they are stale.
//
//go:embed schemas/v1/*.json
var schemas embed.FS

// Schema returns the JSON Schema (2020-12) of a kind's document, made from the types. Editors and other tools may
// judge by it; it says less than Validate, never more.
func Schema(k Kind) ([]byte, error) {
	text, err := schemas.ReadFile(schemaPath(k))
	if _, known := k.Info(); !known || err != nil {
		return nil, Errorf("find schema", Ref{}, NotFound, "no such kind%s; known: %s", didYouMean(string(k), kindNames()), strings.Join(kindNames(), ", "))
	}
	return text, nil
}

func schemaPath(k Kind) string { return "schemas/v1/" + strings.ToLower(string(k)) + ".json" }
