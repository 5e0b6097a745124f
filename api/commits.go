// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"slices"
	"strconv"

	"github.com/connectsoft/plumbline/adapters"
	"github.com/connectsoft/plumbline/desired"
	"github.com/connectsoft/plumbline/desired/gitrepo"
)

// authorCommit is operation 3.
func (s *Server) authorCommit(ctx context.Context, c *call) (answer, error) {
	var in AuthorCommitRequest
	if err := s.decode(c, maxCommitBody, false, &in, &in.TenantID); err != nil {
		return answer{}, err
	}
	if faults := commitFaults(in); len(faults) > 0 {
		return answer{}, invalid("author commit", faults...)
	}
	name, err := s.ulidName(c)
	if err != nil {
		return answer{}, err
	}
	// Who names a repository that is not there learns nothing about artifacts.
	if _, _, err := repository(c.repo.Head().Snapshot, c.param("repoId")); err != nil && !c.seenBefore() {
		return answer{}, err
	}
	spec, content, err := s.commitSpec(ctx, c, in)
	if err != nil {
		return answer{}, err
	}
	l, err := s.create(ctx, c, creation{
		message: "Author a commit on branch " + in.Branch,
		build: func(snap *desired.Snapshot) (made, error) {
			repo, _, err := repository(snap, c.param("repoId"))
			if err != nil {
				return made{}, err
			}
			ref := repo.Ref.Sibling(desired.KindCommit, name)
			own := *spec
			own.Repository = repo.Ref.Name
			return made{ref: ref, resource: document(ref, &own), attached: beside(ref, content)}, nil
		},
		find: func(snap *desired.Snapshot, rc gitrepo.Receipt) (desired.Ref, bool) {
			repo, _, err := repository(snap, c.param("repoId"))
			if err != nil {
				return desired.Ref{}, false
			}
			return findULID(snap, desired.KindCommit, repo.Ref.Project, name, rc)
		},
		pointer: renamed(map[string]string{"/spec/repository": "/repoId"}),
	})
	return respond(c, l, err, commitView)
}

// seenBefore reports whether the idempotency key of the request is known: its answer is then found by the key. A
// write that is only tried does not look at keys.
func (c *call) seenBefore() bool {
	if only, _ := c.whatIf(); only {
		return false
	}
	key, _, err := c.idempotency()
	if err != nil || key == "" {
		return false
	}
	_, _, ok := c.repo.Lookup(key)
	return ok
}

func commitFaults(in AuthorCommitRequest) faults {
	f := (faults{}).need("/branch", in.Branch).need("/message", in.Message).most("/message", in.Message, 65536)
	if len(in.Changes) == 0 {
		f = append(f, desired.FieldError{Pointer: "/changes", Detail: "is required: name at least one file"})
	}
	for i, ch := range in.Changes {
		at := "/changes/" + strconv.Itoa(i)
		f = f.need(at+"/path", ch.Path).need(at+"/operation", ch.Operation).
			among(at+"/operation", ch.Operation, desired.OpAdd, desired.OpModify, desired.OpDelete, desired.OpRename).
			among(at+"/encoding", ch.Encoding, "utf-8", "base64").
			among(at+"/mode", ch.Mode, "100644", "100755")
		if ch.Content != nil && ch.Operation == desired.OpDelete {
			f = append(f, desired.FieldError{Pointer: at + "/content", Detail: "a deletion has no content: remove it"})
		}
		if len(f) >= 20 {
			break
		}
	}
	return f
}

// commitSpec turns a request into a spec, and its content into blobs by digest. Content that is not in the request
// comes from the artifact, whose present digest is pinned.
func (s *Server) commitSpec(ctx context.Context, c *call, in AuthorCommitRequest) (*desired.CommitSpec, map[string][]byte, error) {
	spec := &desired.CommitSpec{Branch: in.Branch, Message: in.Message, ArtifactID: in.ArtifactID}
	content := map[string][]byte{}
	var wanting []int // changes whose content the artifact has to give
	total := 0
	for i, ch := range in.Changes {
		out := desired.FileChange{Path: ch.Path, Operation: ch.Operation, From: ch.From}
		if ch.Mode != "100644" { // the default is not written
			out.Mode = ch.Mode
		}
		if ch.Content == nil {
			if ch.Operation == desired.OpAdd || ch.Operation == desired.OpModify {
				wanting = append(wanting, i)
			}
			spec.Changes = append(spec.Changes, out)
			continue
		}
		data, err := decodeContent(i, ch)
		if err != nil {
			return nil, nil, err
		}
		if total += len(data); total > desired.MaxCommitBytes {
			return nil, nil, faultf(CodeTooLarge, "author commit", "the files have more than 8 MiB together: split the commit")
		}
		attach(&out, data, content)
		spec.Changes = append(spec.Changes, out)
	}
	if err := s.fromArtifact(ctx, c, spec, content, wanting); err != nil {
		return nil, nil, err
	}
	return spec, content, nil
}

func decodeContent(i int, ch CommitChange) ([]byte, error) {
	at := "/changes/" + strconv.Itoa(i) + "/content"
	data := []byte(*ch.Content)
	if ch.Encoding == "base64" {
		var err error
		if data, err = base64.StdEncoding.DecodeString(*ch.Content); err != nil {
			return nil, invalid("author commit", desired.FieldError{Pointer: at, Detail: "is not base64: use the standard alphabet with padding"})
		}
	}
	if len(data) > desired.MaxContentBytes {
		return nil, &Fault{CodeTooLarge, &desired.Error{
			Class: desired.Invalid, Op: "author commit", Fields: []desired.FieldError{{Pointer: at, Detail: "the file has more than 1 MiB: put it into an artifact"}},
		}}
	}
	return data, nil
}

// attach puts content beside the document.
func attach(ch *desired.FileChange, data []byte, content map[string][]byte) {
	sum := sha256.Sum256(data)
	ch.Digest, ch.Size = "sha256:"+hex.EncodeToString(sum[:]), int64(len(data))
	content[ch.Digest] = data
}

func beside(ref desired.Ref, content map[string][]byte) []desired.Write {
	out := make([]desired.Write, 0, len(content))
	doc := desired.Path(ref)
	for digest, data := range content {
		out = append(out, desired.Write{Path: desired.AttachedPath(doc, ref.Name, digest), Data: data})
	}
	slices.SortFunc(out, func(a, b desired.Write) int {
		if a.Path < b.Path {
			return -1
		}
		return 1
	})
	return out
}

// fromArtifact pins the artifact and checks that it has every file that is wanted of it. An artifact that is one
// file and no archive gives its bytes to the one change that wants any.
func (s *Server) fromArtifact(ctx context.Context, c *call, spec *desired.CommitSpec, content map[string][]byte, wanting []int) error {
	if len(wanting) == 0 && spec.ArtifactID == "" {
		return nil
	}
	if spec.ArtifactID == "" {
		return invalid("author commit", desired.FieldError{
			Pointer: "/changes/" + strconv.Itoa(wanting[0]) + "/content", Detail: "is missing: give the content, or the artifactId that holds it",
		})
	}
	if err := goodArtifactID(spec.ArtifactID); err != nil {
		return invalid("author commit", desired.FieldError{Pointer: "/artifactId", Detail: err.Error()})
	}
	art, err := s.cfg.Artifacts.Stat(ctx, c.who.Tenant, spec.ArtifactID)
	if desired.ClassOf(err) == desired.NotFound {
		return invalid("author commit", desired.FieldError{Pointer: "/artifactId", Detail: "there is no such artifact: store it first with PUT /artifacts/{id}"})
	}
	if err != nil {
		return err
	}
	spec.ArtifactDigest = art.Digest
	if len(wanting) == 1 && len(art.Files) == 1 && art.Files[0] == singleFile && spec.Changes[wanting[0]].Path != singleFile {
		return s.inlineArtifact(ctx, c, art, &spec.Changes[wanting[0]], content)
	}
	var missing faults
	for _, i := range wanting {
		if !slices.Contains(art.Files, spec.Changes[i].Path) && len(missing) < 20 {
			missing = append(missing, desired.FieldError{Pointer: "/changes/" + strconv.Itoa(i) + "/path", Detail: "the artifact has no file of this path, and the change has no content"})
		}
	}
	if len(missing) > 0 {
		return invalid("author commit", missing...)
	}
	return nil
}

// singleFile is the path at which an artifact that is no archive offers its bytes.
const singleFile = "content"

func (s *Server) inlineArtifact(ctx context.Context, c *call, art Artifact, ch *desired.FileChange, content map[string][]byte) error {
	if art.Size > desired.MaxContentBytes {
		return faultf(CodeTooLarge, "author commit", "the artifact is one file of more than 1 MiB: store it as an archive with the path of the file")
	}
	data, err := s.cfg.Artifacts.File(ctx, c.who.Tenant, art.ID, art.Digest, singleFile)
	if err != nil {
		return err
	}
	attach(ch, data, content)
	return nil
}

func commitView(st standing, about said) Commit {
	spec, _ := st.entry.Resource.Spec.(*desired.CommitSpec)
	if spec == nil {
		spec = &desired.CommitSpec{}
	}
	var actual adapters.CommitActual
	st.outputs(&actual)
	return Commit{
		CommitID: st.entry.ID, RepositoryID: repositoryOf(st.entry).ID(), SHA: actual.SHA, Branch: spec.Branch, Message: spec.Message,
		Status: word("Commit", st.phase), Problem: st.problem(), Sync: st.sync(), Source: st.source(),
		Commit: about.commit, TraceID: about.trace, Warnings: about.warnings,
	}
}
