// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/connectsoft/plumbline/desired"
)

func (s *Server) getOpenAPI(context.Context, *call) (answer, error) {
	return answer{status: http.StatusOK, body: json.RawMessage(s.openapi)}, nil
}

func (s *Server) getSchema(_ context.Context, c *call) (answer, error) {
	kind := desired.Kind(c.param("kind"))
	if _, ok := kind.Info(); !ok {
		return answer{}, desired.Errorf("find schema", desired.Ref{}, desired.NotFound, "there is no such kind; known: %s", joinKinds(allKinds()))
	}
	schema, err := desired.Schema(kind)
	if err != nil {
		return answer{}, err
	}
	return answer{status: http.StatusOK, body: json.RawMessage(schema)}, nil
}

func allKinds() []desired.Kind {
	var out []desired.Kind
	for _, k := range desired.Kinds() {
		out = append(out, k.Kind)
	}
	return out
}

// getIssuerConfiguration serves the development issuer's discovery document, to this machine only.
func (s *Server) getIssuerConfiguration(_ context.Context, c *call) (answer, error) {
	if dev := s.cfg.Auth.Dev(); dev != nil {
		if doc := dev.Discovery(c.r); doc != nil {
			return answer{status: http.StatusOK, body: doc}, nil
		}
	}
	return answer{}, notHere()
}

func (s *Server) getIssuerKeys(_ context.Context, c *call) (answer, error) {
	if dev := s.cfg.Auth.Dev(); dev != nil {
		if keys := dev.Keys(c.r); keys != nil {
			return answer{status: http.StatusOK, body: keys}, nil
		}
	}
	return answer{}, notHere()
}

func notHere() error {
	return desired.Errorf("find issuer", desired.Ref{}, desired.NotFound, "there is no development issuer at this address")
}
