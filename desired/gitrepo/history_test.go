// SPDX-License-Identifier: Apache-2.0

package gitrepo

import (
	"fmt"
	"slices"
	"testing"

	"github.com/connectsoft/plumbline/desired"
	"github.com/connectsoft/plumbline/desired/gitstore"
)

// history reads the whole history of a ref in pages, as operation and first line of the message.
func history(t *testing.T, r *Repo, ref desired.Ref, path string, n, walk int) []string {
	t.Helper()
	var out []string
	at := HistoryAt{r.Head().Commit, path}
	for pages := 0; at.Commit != ""; pages++ {
		if pages > 100 {
			t.Fatal("the history does not end")
		}
		found, more, err := r.History(t.Context(), ref, at, n, walk)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range found {
			if len(v.Commit) != 40 || v.At.IsZero() || v.Author == "" || (v.Digest == "") != (v.Operation == DocumentRemoved) {
				t.Errorf("version %+v", v)
			}
			out = append(out, v.Operation+" "+v.Message+" by "+v.Principal)
		}
		at = more
	}
	return out
}

func TestHistoryFollowsADocument(t *testing.T) {
	r := open(t, config(t.TempDir()))
	ref, _ := rule("quiet", "ignore")
	path := desired.Path(ref)
	do := func(message, subject string, edit desired.Edit) {
		commit(t, r, Request{Edit: edit, Subject: subject, Message: message})
	}
	do("First", "user:ann", put("quiet", "ignore"))
	do("Another one", "user:bob", put("loud", "report"))
	do("Second", "user:bob", put("quiet", "report"))
	do("Gone", "user:ann", desired.Remove(ref, ""))
	do("Back", "user:ann", put("quiet", "ignore"))
	do("Elsewhere", "user:ann", func(v desired.View) ([]desired.Write, error) {
		data, _, err := v.Read(path)
		return []desired.Write{{Path: path, Delete: true}, {Path: "projects/shop/team.yaml", Data: append([]byte("# ours\n"), data...)}}, err
	})
	do("A comment", "user:ann", func(v desired.View) ([]desired.Write, error) {
		data, _, err := v.Read("projects/shop/team.yaml")
		return []desired.Write{{Path: "projects/shop/team.yaml", Data: append([]byte("# still\n"), data...)}}, err
	})
	want := []string{
		"moved Elsewhere by user:ann", "created Back by user:ann", "removed Gone by user:ann",
		"changed Second by user:bob", "created First by user:ann",
	}
	for _, page := range []struct{ n, walk int }{{100, 200}, {1, 200}, {100, 1}, {2, 3}} {
		if got := history(t, r, ref, "projects/shop/team.yaml", page.n, page.walk); !slices.Equal(got, want) {
			t.Errorf("pages of %+v:\n%q, want\n%q", page, got, want)
		}
	}
}

func TestHistoryIsBoundedAndRefusesWrongPlaces(t *testing.T) {
	r := open(t, config(t.TempDir()))
	ref, _ := rule("quiet", "ignore")
	commit(t, r, Request{Edit: put("quiet", "ignore"), Subject: "user:ann", Message: "First"})
	for i := range 30 {
		commit(t, r, Request{Edit: put(fmt.Sprint("other", i), "ignore"), Subject: "user:ann", Message: "Other"})
	}
	head := r.Head().Commit
	found, more, err := r.History(t.Context(), ref, HistoryAt{head, desired.Path(ref)}, 10, 20)
	if err != nil || len(found) != 0 || more.Commit == "" || more.Commit == head {
		t.Errorf("walked too far: %v %v %v", found, more, err)
	}
	for _, at := range []HistoryAt{
		{"", desired.Path(ref)}, {"zz", desired.Path(ref)}, {gitstore.HashBlob([]byte("x")).String(), desired.Path(ref)}, {head, "../x"}, {head, "README.md"},
	} {
		if _, _, err := r.History(t.Context(), ref, at, 10, 20); desired.ClassOf(err) != desired.Invalid {
			t.Errorf("%+v: %v", at, err)
		}
	}
}
