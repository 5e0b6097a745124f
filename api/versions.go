// SPDX-License-Identifier: Apache-2.0

package api

import (
	"mime"
	"strconv"
	"strings"

	"github.com/connectsoft/plumbline/api/auth"
)

// version is the one version of the DevOps operations; the Accept header may ask for it.
const version = "1"

const (
	jsonType   = "application/json; version=" + version
	streamType = "text/event-stream"
)

// contentType is the Content-Type of an operation's answers.
func contentType(op *auth.Operation) string {
	switch op.ID {
	case "getSchema":
		return "application/schema+json"
	case "getOpenAPI", "getIssuerConfiguration", "getIssuerKeys":
		return "application/json"
	}
	return jsonType
}

// offers is what an operation can answer with, besides problems.
func offers(op *auth.Operation) []string {
	switch op.ID {
	case "watchSyncStates", "watchFindings":
		return []string{streamType}
	case "getArtifact":
		return []string{"*/*"}
	}
	return []string{"application/json"}
}

// acceptable checks the Accept header: some range of it must take what the operation offers, in a version that
// exists.
func acceptable(op *auth.Operation, header []string) error {
	if len(header) == 0 || len(header) == 1 && (header[0] == "" || header[0] == "*/*") {
		return nil
	}
	known := false // some range named the type, only in another version
	for _, h := range header {
		for _, r := range strings.Split(h, ",") {
			for _, offer := range offers(op) {
				matches, asked := accepts(r, offer)
				if matches && (asked == "" || asked == version) {
					return nil
				}
				known = known || matches
			}
		}
	}
	if known {
		return faultf(CodeNotAcceptable, "negotiate version", "this server speaks version %s: ask for application/json; version=%s, or leave the version out", version, version)
	}
	return faultf(CodeNotAcceptable, "negotiate content", "this operation answers with %s: accept that", strings.Join(offers(op), " or "))
}

// accepts reports whether a media range takes a type, and which version it asks for.
func accepts(mediaRange, offer string) (matches bool, version string) {
	t, params, err := mime.ParseMediaType(mediaRange)
	if err != nil {
		return false, ""
	}
	if q, err := strconv.ParseFloat(params["q"], 64); params["q"] != "" && (err != nil || q <= 0) {
		return false, ""
	}
	major, _, _ := strings.Cut(offer, "/")
	return offer == "*/*" || t == "*/*" || t == offer || t == major+"/*", params["version"]
}

// onlyJSON reports whether a caller accepts application/json and nothing that is not JSON.
func onlyJSON(header []string) bool {
	found := false
	for _, h := range header {
		for _, r := range strings.Split(h, ",") {
			t, _, err := mime.ParseMediaType(r)
			if err != nil || t != "application/json" {
				return false
			}
			found = true
		}
	}
	return found
}
