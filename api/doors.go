// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"net/http"
	"net/url"
	"strings"

	"github.com/connectsoft/plumbline/api/auth"
	"github.com/connectsoft/plumbline/desired"
)

// doorRequest is a git request taken apart.
type doorRequest struct {
	door                  auth.Door
	tenant, project, name string
	rest                  string // path behind the repository, with its slash
	write                 bool
}

// readDoor reads the path of a git request. Only the three requests of smart HTTP exist.
func readDoor(r *http.Request) (d doorRequest, ok bool) {
	path, isDoor := strings.CutPrefix(r.URL.Path, "/git/")
	repo, rest, found := strings.Cut(path, ".git/")
	if !isDoor || !found {
		return d, false
	}
	parts := strings.Split(repo, "/")
	switch {
	case len(parts) == 2 && parts[0] == string(auth.DoorControl):
		d.door, d.tenant = auth.DoorControl, parts[1]
	case len(parts) == 1 && parts[0] == string(auth.DoorPlatform):
		d.door = auth.DoorPlatform
	case len(parts) == 4 && parts[0] == string(auth.DoorHosted):
		d.door, d.tenant, d.project, d.name = auth.DoorHosted, parts[1], parts[2], parts[3]
	default:
		return d, false
	}
	d.rest = "/" + rest
	service := r.URL.Query().Get("service")
	switch {
	case r.Method == http.MethodGet && rest == "info/refs" && (service == "git-upload-pack" || service == "git-receive-pack"):
		d.write = service == "git-receive-pack"
	case r.Method == http.MethodPost && (rest == "git-upload-pack" || rest == "git-receive-pack"):
		d.write = rest == "git-receive-pack"
	default:
		return d, false
	}
	return d, true
}

// door serves clones, fetches and pushes. Without a token every path answers 401; with one, what is another tenant's
// answers exactly like what does not exist.
func (s *Server) door(w http.ResponseWriter, r *http.Request) {
	info := infoOf(r)
	ctx := r.Context()
	who, err := s.cfg.Auth.BearerOrBasic(ctx, r.Header.Values("Authorization"))
	if err != nil {
		s.problem(w, r, err)
		return
	}
	info.who = who
	h, rest, err := s.openDoor(ctx, who, info, r)
	if err != nil {
		s.problem(w, r, err)
		return
	}
	inner := r.WithContext(auth.With(ctx, who))
	u := url.URL{Path: rest, RawQuery: r.URL.RawQuery}
	inner.URL = &u
	h.ServeHTTP(w, inner)
}

func (s *Server) openDoor(ctx context.Context, who *auth.Principal, info *requestInfo, r *http.Request) (http.Handler, string, error) {
	missing := desired.Errorf("open git repository", desired.Ref{}, desired.NotFound, "there is no git repository at this path")
	d, ok := readDoor(r)
	if !ok {
		return nil, "", missing
	}
	op := s.cfg.Auth.DoorOperation(d.door, d.write)
	if op == nil {
		return nil, "", missing
	}
	info.operation = op.ID
	var h http.Handler
	switch {
	case d.door == auth.DoorPlatform && who.Platform && s.cfg.Doors.Platform != nil:
		h = s.cfg.Doors.Platform(ctx)
	case d.door == auth.DoorControl && owns(who, d.tenant) && s.cfg.Doors.Control != nil:
		h = s.cfg.Doors.Control(ctx, d.tenant)
	case d.door == auth.DoorHosted && owns(who, d.tenant) && s.cfg.Doors.Hosted != nil:
		h = s.cfg.Doors.Hosted(ctx, d.tenant, d.project, d.name)
	}
	if h == nil {
		return nil, "", missing
	}
	if err := s.cfg.Auth.Allow(who, op); err != nil {
		return nil, "", err
	}
	return h, d.rest, nil
}

func owns(who *auth.Principal, tenant string) bool { return tenant != "" && who.Tenant == tenant }
