// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"net/http"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/connectsoft/plumbline/desired"
	"github.com/connectsoft/plumbline/desired/gitrepo"
)

// commit is the one path of every API write: it lands an edit under the caller's name and idempotency key. A write
// that was made before is answered with its receipt; the edit does not run then. With ?dryRun it ends here, as tried.
func (s *Server) commit(ctx context.Context, c *call, message string, edit desired.Edit) (gitrepo.Receipt, error) {
	if only, err := c.whatIf(); err != nil {
		return gitrepo.Receipt{}, err
	} else if only {
		return gitrepo.Receipt{}, c.try(ctx, message, edit)
	}
	key, fingerprint, err := c.idempotency()
	if err != nil {
		return gitrepo.Receipt{}, err
	}
	return c.repo.Commit(ctx, gitrepo.Request{
		Edit: edit, Subject: c.who.Subject, Message: message, RequestID: c.trace(), Key: key, Fingerprint: fingerprint,
	})
}

// made is what a creation comes to, before it is judged.
type made struct {
	ref      desired.Ref
	resource *desired.Resource
	attached []desired.Write // content beside the document
}

// creation is a write that makes one resource, or finds that it is there.
type creation struct {
	message string
	// build says what to make, judged against the very head that the commit will build on. It may run several
	// times.
	build func(*desired.Snapshot) (made, error)
	// find tells what an earlier run of the same request made.
	find func(*desired.Snapshot, gitrepo.Receipt) (desired.Ref, bool)
	// pointer maps a place in the document to one in the request body.
	pointer func(string) string
}

// landed is a write that is durable, and what became of it within the wait.
type landed struct {
	standing
	receipt gitrepo.Receipt
	answer  answer
	gone    bool // a repeated request, and what it made is no longer there
}

// create runs a creation and waits for its work as the caller prefers.
func (s *Server) create(ctx context.Context, c *call, cr creation) (landed, error) {
	var m made
	judged := false
	rc, err := s.commit(ctx, c, cr.message, func(v desired.View) ([]desired.Write, error) {
		var err error
		if m, err = cr.build(v.Snapshot()); err != nil {
			return nil, err
		}
		e, _ := v.Snapshot().Get(m.ref)
		if err := c.ifMatch(e); err != nil {
			return nil, err
		}
		if !judged { // Put judges again whatever it writes
			if err := judgeFields(m, cr.pointer); err != nil {
				return nil, err
			}
			judged = true
		}
		return desired.Put(m.ref, m.resource, desired.PutOptions{Create: true, Attached: m.attached})(v)
	})
	if err != nil {
		return landed{}, err
	}
	if rc.Replayed {
		ref, ok := cr.find(c.repo.Head().Snapshot, rc)
		if !ok {
			return s.gone(rc), nil
		}
		m.ref = ref
	}
	return s.await(ctx, c, m.ref, rc, http.StatusCreated), nil
}

// judgeFields validates a resource and points its faults into the request body.
func judgeFields(m made, pointer func(string) string) error {
	faults := m.resource.Validate(m.ref)
	if len(faults) == 0 {
		return nil
	}
	for i := range faults {
		faults[i].Pointer = pointer(faults[i].Pointer)
	}
	return invalid("check request", faults...)
}

// await waits for a resource as the caller prefers, and prepares the answer: done is its status when the work ended
// in time, 200 when there was nothing to do, 202 otherwise.
func (s *Server) await(ctx context.Context, c *call, ref desired.Ref, rc gitrepo.Receipt, done int) landed {
	seq := rc.Seq
	if rc.Unchanged {
		if e, ok := c.repo.Head().Snapshot.Get(ref); ok {
			seq = e.Changed.Seq
		}
	}
	wait, preference := s.prefer(c, s.waits[c.op.ID])
	s.settle(ctx, []desired.Ref{ref}, seq, wait)
	e, ok := c.repo.Head().Snapshot.Get(ref)
	if !ok { // removed again meanwhile
		return s.gone(rc)
	}
	l := landed{standing: s.standing(e), receipt: rc}
	l.answer = answer{
		status: written(l.phase, done), location: location(e), etag: e.Digest, preference: preference,
	}
	if rc.Unchanged && done == http.StatusCreated {
		l.answer.status, l.answer.location = http.StatusOK, ""
	}
	if l.answer.status == http.StatusAccepted {
		l.answer.retryAfter = 1
	}
	return l
}

func (s *Server) gone(rc gitrepo.Receipt) landed {
	return landed{receipt: rc, gone: true}
}

// said is what every answer tells besides its resource.
type said struct {
	commit, trace string
	warnings      []string
}

func (c *call) about(commit string) said { return said{commit, c.trace(), c.warnings} }

// respond answers a write with the view of what it made.
func respond[T any](c *call, l landed, err error, view func(standing, said) T) (answer, error) {
	switch {
	case err != nil:
		return answer{}, err
	case l.gone:
		return c.answerGone(l.receipt), nil
	}
	l.answer.body = view(l.standing, c.about(l.receipt.Commit))
	return l.answer, nil
}

// answerGone answers a repeated request whose resource is no longer there: with the receipt of the first time.
func (c *call) answerGone(rc gitrepo.Receipt) answer {
	return answer{status: http.StatusOK, body: Receipt{
		ReceiptID: rc.Commit, Commit: rc.Commit, Seq: rc.Seq, Base: rc.Base, At: rc.At, Status: "removed", TraceID: c.trace(),
	}}
}

// location is the address of a resource.
func location(e *desired.Entry) string {
	info, _ := e.Ref.Kind.Info()
	return "/" + info.Plural + "/" + e.ID
}

// ulidName makes the name of a one-shot resource: a ULID in lower case. Its random part comes from the idempotency
// key where there is one, so that a repeated request can find what the first one made.
func (s *Server) ulidName(c *call) (string, error) {
	key, _, err := c.idempotency()
	if err != nil {
		return "", err
	}
	var u ulid.ULID
	if err := u.SetTime(ulid.Timestamp(s.cfg.Now())); err != nil {
		return "", err
	}
	entropy := make([]byte, 10)
	if key == "" {
		rand.Read(entropy)
	} else if entropy, err = hex.DecodeString(key[:20]); err != nil {
		return "", err
	}
	if err := u.SetEntropy(entropy); err != nil {
		return "", err
	}
	return strings.ToLower(u.String()), nil
}

// replayWindow is how long before its commit a request may have got its ULID.
const replayWindow = time.Hour

// findULID finds the resource of a kind that an earlier run of a request made: names sort by time, and the random
// part is that of the key.
func findULID(snap *desired.Snapshot, kind desired.Kind, project, name string, rc gitrepo.Receipt) (desired.Ref, bool) {
	const random = 16 // characters of the random part
	var from ulid.ULID
	if err := from.SetTime(ulid.Timestamp(rc.At.Add(-replayWindow))); err != nil {
		return desired.Ref{}, false
	}
	after := desired.Ref{Tenant: snap.Tenant(), Project: project, Kind: kind, Name: strings.ToLower(from.String())}
	for e := range snap.List(kind, project, after.String()) {
		if len(e.Ref.Name) == ulid.EncodedSize && strings.HasSuffix(e.Ref.Name, name[len(name)-random:]) {
			return e.Ref, true
		}
	}
	return desired.Ref{}, false
}

// repository finds a Repository by its id in a snapshot of the caller's tenant.
func repository(snap *desired.Snapshot, id string) (*desired.Entry, *desired.RepositorySpec, error) {
	e, ok := snap.ByID(id)
	if ok {
		if spec, ok := e.Resource.Spec.(*desired.RepositorySpec); ok {
			return e, spec, nil
		}
	}
	return nil, nil, notFound("repository")
}

// document frames a spec.
func document(ref desired.Ref, spec desired.Spec) *desired.Resource {
	return &desired.Resource{APIVersion: desired.APIVersion, Kind: ref.Kind, Metadata: desired.Metadata{Name: ref.Name}, Spec: spec}
}

// renamed maps pointers by the longest prefix that is renamed; "/spec" falls away.
func renamed(names map[string]string) func(string) string {
	return func(p string) string {
		best := ""
		for from := range names {
			if (p == from || strings.HasPrefix(p, from+"/")) && len(from) > len(best) {
				best = from
			}
		}
		if best != "" {
			return names[best] + p[len(best):]
		}
		return strings.TrimPrefix(p, "/spec")
	}
}
