// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"fmt"
	"slices"
	"strings"

	"github.com/connectsoft/plumbline/adapters"
	"github.com/connectsoft/plumbline/desired"
)

func compareRepository(in Input, want *desired.RepositorySpec) (look, bool) {
	have, ok := known[adapters.RepositoryActual](in)
	if !ok {
		return look{}, false
	}
	name := in.Ref.Name
	if have == nil {
		return look{fields: []difference{missingRepository(in, name)}}, true
	}
	was := applied(in, want)
	l := look{fields: []difference{{kind: RepositoryMissing, desired: name, equal: true}}}
	setting := func(kind FindingKind, field, want, have string, same bool) {
		l.fields = append(l.fields, difference{
			kind: kind, field: field, update: field, desired: want, actual: have,
			equal: want == have, cause: cause(in, same), op: adapters.Update, lossless: true,
		})
	}
	setting(DefaultBranchMismatch, "spec.defaultBranch", want.DefaultBranchOr(), have.DefaultBranch,
		was != nil && was.DefaultBranchOr() == want.DefaultBranchOr())
	setting(VisibilityMismatch, "spec.visibility", want.VisibilityOr(), have.Visibility,
		was != nil && was.VisibilityOr() == want.VisibilityOr())
	if managed := want.Description != "" || was != nil && was.Description != ""; managed {
		setting(DescriptionMismatch, "spec.description", want.Description, have.Description,
			was != nil && was.Description == want.Description)
	}
	setting(ArchivedMismatch, "spec.archived", fmt.Sprint(want.Archived), fmt.Sprint(have.Archived),
		was != nil && was.Archived == want.Archived)
	l.fields = append(l.fields, compareProtection(in, want, have, was)...)
	return l, true
}

func missingRepository(in Input, name string) difference {
	d := difference{
		kind: RepositoryMissing, desired: name, cause: CauseNotYetApplied, op: adapters.Create,
		what: fmt.Sprintf("repository %s is not there yet", name),
	}
	if in.Applied != nil {
		d.cause, d.op = CauseDrift, ""
		d.what = fmt.Sprintf("repository %s was there and is missing now; its content would not come back with a new one, so none is made", name)
		d.never = "bring it back at the provider; or remove this document and, once that is done, add it again: that is the approval for a new, empty repository"
	}
	return d
}

// compareProtection compares branch protections by pattern, in order of the patterns.
func compareProtection(in Input, want *desired.RepositorySpec, have *adapters.RepositoryActual, was *desired.RepositorySpec) []difference {
	wanted, there := byPattern(want.Protection), byPattern(have.Protection)
	before := map[string]string{}
	if was != nil {
		before = byPattern(was.Protection)
	}
	var patterns []string
	for _, m := range []map[string]string{wanted, there} {
		for p := range m {
			if !slices.Contains(patterns, p) {
				patterns = append(patterns, p)
			}
		}
	}
	slices.Sort(patterns)
	var out []difference
	for _, p := range patterns {
		out = append(out, difference{
			kind: ProtectionMismatch, subject: p, field: "spec.protection", update: "spec.protection",
			desired: orNone(wanted[p]), actual: orNone(there[p]), equal: wanted[p] == there[p],
			cause: cause(in, was != nil && before[p] == wanted[p]), op: adapters.Update, lossless: true,
		})
	}
	return out
}

// byPattern renders protections so that equal ones are equal strings, whatever order their lists are in.
func byPattern(list []desired.BranchProtection) map[string]string {
	out := map[string]string{}
	for _, p := range list {
		var terms []string
		if p.RequirePull {
			terms = append(terms, "pull request required")
		}
		if n := p.RequiredApprovals; n > 0 {
			terms = append(terms, fmt.Sprintf("%d approval(s)", n))
		}
		if checks := slices.Sorted(slices.Values(p.RequiredChecks)); len(checks) > 0 {
			terms = append(terms, "checks "+strings.Join(checks, " "))
		}
		if p.AllowForcePush {
			terms = append(terms, "force push allowed")
		}
		if p.AllowDeletion {
			terms = append(terms, "deletion allowed")
		}
		if terms == nil {
			terms = []string{"protected"}
		}
		out[p.Pattern] = strings.Join(terms, ", ")
	}
	return out
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

// immutable finds what a document asks for that cannot be changed in place: where the outside object is, and what a
// one-shot that ran was.
func immutable(in Input) (difference, bool) {
	d := difference{
		kind: ImmutableField, cause: CauseNotYetApplied,
		never: "put the old value back; for something new add a document of its own, and remove this one",
	}
	if in.Applied == nil {
		return d, false
	}
	if _, ok := in.Want.Resource.Spec.(*desired.RepositorySpec); !ok && in.Applied.Digest == in.Want.Digest {
		return d, false
	}
	switch want := in.Want.Resource.Spec.(type) {
	case *desired.RepositorySpec:
		d.kind, d.field, d.desired, d.actual = ProviderMismatch, "spec.provider", in.Provider, in.Applied.Provider
		d.equal = in.Provider == "" || in.Applied.Provider == "" || in.Provider == in.Applied.Provider
		d.never = "Plumbline does not move a repository to another provider: put the old one back; or move it by hand, remove this document and add it again"
	case *desired.BranchSpec:
		if was := applied(in, want); was != nil {
			d.same(in, "spec.repository", was.Repository, want.Repository)
			d.same(in, "spec.name", was.Name, want.Name)
		}
	case *desired.CommitSpec:
		if was := applied(in, want); was != nil {
			d.same(in, "spec.repository", was.Repository, want.Repository)
			d.same(in, "spec", executed(was), executed(want))
		}
	case *desired.PullRequestSpec:
		if was := applied(in, want); was != nil {
			d.same(in, "spec.repository", was.Repository, want.Repository)
			d.same(in, "spec.sourceBranch", was.SourceBranch, want.SourceBranch)
		}
	}
	return d, d.field != "" && !d.equal
}

// same records the first field that must not change and did. A repository may change its name by formerName.
func (d *difference) same(in Input, field, was, want string) {
	if d.field != "" || was == want {
		return
	}
	if field == "spec.repository" && in.Parent != nil && in.Parent.Resource.Metadata.FormerName == was {
		return
	}
	d.field, d.desired, d.actual = field, want, was
	if d.field == "spec" {
		d.desired, d.actual = "another commit", "the commit that was made"
		d.what = "the document was changed after the commit was made; a commit is made once"
	}
}

// Pinned is the spec that says where the outside object of a ref is: the wanted one, unless it asks for a place that
// an applied object cannot move to.
func Pinned(in Input) desired.Spec {
	if in.Want != nil {
		if _, moved := immutable(in); !moved {
			return in.Want.Resource.Spec
		}
	}
	if in.Applied == nil {
		return nil
	}
	spec := in.Ref.Kind.NewSpec()
	if spec == nil || decode(in.Applied.Spec, spec) != nil {
		return nil
	}
	return spec
}
