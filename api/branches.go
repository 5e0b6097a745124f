// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"strings"

	"github.com/connectsoft/plumbline/adapters"
	"github.com/connectsoft/plumbline/desired"
	"github.com/connectsoft/plumbline/desired/gitrepo"
)

// createBranch is operation 2.
func (s *Server) createBranch(ctx context.Context, c *call) (answer, error) {
	var in CreateBranchRequest
	if err := s.decode(c, maxBody, false, &in, &in.TenantID); err != nil {
		return answer{}, err
	}
	if faults := (faults{}).need("/name", in.Name); len(faults) > 0 {
		return answer{}, invalid("create branch", faults...)
	}
	l, err := s.create(ctx, c, creation{
		message: "Create branch " + in.Name,
		build: func(snap *desired.Snapshot) (made, error) {
			repo, _, err := repository(snap, c.param("repoId"))
			if err != nil {
				return made{}, err
			}
			ref := branchRef(snap, repo.Ref, in.Name)
			return made{ref: ref, resource: document(ref, &desired.BranchSpec{
				Repository: repo.Ref.Name, Name: in.Name, FromBranch: in.FromBranch, FromCommit: in.FromCommit,
			})}, nil
		},
		find: func(snap *desired.Snapshot, _ gitrepo.Receipt) (desired.Ref, bool) {
			repo, _, err := repository(snap, c.param("repoId"))
			if err != nil {
				return desired.Ref{}, false
			}
			ref := branchRef(snap, repo.Ref, in.Name)
			_, ok := snap.Get(ref)
			return ref, ok
		},
		pointer: renamed(map[string]string{"/metadata/name": "/name", "/spec/repository": "/repoId"}),
	})
	return respond(c, l, err, branchView)
}

// branchRef is the ref of a branch of a repository: that of the document that has it already, wherever a person may
// have put it and whatever they called it, else the derived name. Two branches whose derived names meet get longer
// ones.
func branchRef(snap *desired.Snapshot, repo desired.Ref, branch string) desired.Ref {
	for e := range snap.Children(repo) {
		if s, ok := e.Resource.Spec.(*desired.BranchSpec); ok && s.Name == branch {
			return e.Ref
		}
	}
	ref := repo.Sibling(desired.KindBranch, "")
	for digits := 4; ; digits += 8 {
		ref.Name = branchName(repo.Name, branch, digits)
		if _, taken := snap.Get(ref); !taken || digits > 32 {
			return ref
		}
	}
}

// branchName derives a resource name from a branch: <repository>.<branch in the letters of names>-<hex of its hash>.
func branchName(repository, branch string, digits int) string {
	const longest, room = 128, 80 // of a resource name; of the repository's share in it
	hashed := branch
	if len(repository) > room {
		repository, hashed = repository[:room], repository+"\x00"+branch
	}
	sum := sha256.Sum256([]byte(hashed))
	slug := strings.Map(func(r rune) rune {
		switch {
		case r >= 'A' && r <= 'Z':
			return r + ('a' - 'A')
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r == '.', r == '_', r == '-':
			return r
		}
		return '-'
	}, branch)
	tail := "-" + hex.EncodeToString(sum[:])[:digits]
	if left := longest - len(repository) - 1 - len(tail); len(slug) > left {
		slug = slug[:left]
	}
	return repository + "." + slug + tail
}

func branchView(st standing, about said) Branch {
	spec, _ := st.entry.Resource.Spec.(*desired.BranchSpec)
	if spec == nil {
		spec = &desired.BranchSpec{}
	}
	var actual adapters.BranchActual
	st.outputs(&actual)
	from := actual.FromCommit
	if from == "" {
		from = spec.FromCommit
	}
	return Branch{
		BranchID: st.entry.ID, RepositoryID: repositoryOf(st.entry).ID(), Name: spec.Name, FromBranch: spec.FromBranch,
		FromCommit: from, HeadCommit: actual.Head,
		Status: word("Branch", st.phase), Problem: st.problem(), Sync: st.sync(), Source: st.source(),
		Commit: about.commit, TraceID: about.trace, Warnings: about.warnings,
	}
}
