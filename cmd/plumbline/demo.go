// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/connectsoft/plumbline/api"
	"github.com/connectsoft/plumbline/desired"
)

// The people and things of the story.
const (
	demoTenant  = "connectsoft"
	demoProject = "proj-booking-saas"
	demoRepo    = "reservations-api"
	demoFeature = "feature/reservation-cancellation"
	demoRelease = "release/2026.6"
	demoAgent   = "agent:PullRequestCreator"
)

func newDemoCommand(sh *shell) *cobra.Command {
	var keep bool
	cmd := &cobra.Command{
		Use: "demo", Short: "Play the whole story against a daemon of its own, and check every step", Args: exactly(),
		Long: `Start a daemon with embedded defaults in a temporary directory and play the whole story through its public API, this
command line and plain git: a repository, a branch, a commit, a pull request and its merge; a team member who edits
the control repository; somebody who deletes a branch behind the daemon's back. A watcher shows every transition. The
exit code is 0 when everything was seen in time.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return runDemo(cmd.Context(), sh, keep) },
	}
	cmd.Flags().BoolVar(&keep, "keep", false, "leave the state directory behind")
	return cmd
}

// scene is one step of the story.
type scene struct {
	title string
	play  func(*demo, context.Context) error
}

func scenes() []scene {
	return []scene{
		{"A daemon with nothing configured", (*demo).open},
		{"A watcher", (*demo).openWatch},
		{"An agent provisions a repository", (*demo).provision},
		{"It branches", (*demo).branch},
		{"It authors a commit with real files", (*demo).author},
		{"It opens a pull request and reads it back", (*demo).openPull},
		{"It merges it", (*demo).merge},
		{"A team member clones the control repository with git, edits YAML and pushes", (*demo).teamPush},
		{"A slip of the pen is refused at the door, with its place", (*demo).badPush},
		{"Somebody deletes a branch behind the daemon's back", (*demo).drift},
		{"The watcher saw all of it", (*demo).reviewWatch},
		{"The daemon ends when it is asked to", (*demo).close},
	}
}

// runDemo plays the scenes in order; the first that fails ends the story.
func runDemo(ctx context.Context, sh *shell, keep bool) (err error) {
	dir, err := os.MkdirTemp("", "plumbline-demo-")
	if err != nil {
		return err
	}
	d := &demo{sh: sh, dir: dir, state: filepath.Join(dir, "state")}
	defer func() {
		d.stopChildren()
		if err != nil && ctx.Err() == nil {
			d.showDaemonLog()
		}
		if keep {
			fmt.Fprintln(sh.stdout, "\nthe state is left in "+dir)
		} else {
			os.RemoveAll(dir)
		}
	}()
	start := time.Now()
	for i, s := range scenes() {
		d.out("\n%2d. %s", i+1, s.title)
		limited, cancel := context.WithTimeout(ctx, 45*time.Second)
		err = s.play(d, limited)
		cancel()
		if err != nil {
			return fmt.Errorf("demo, step %d (%s): %w", i+1, s.title, err)
		}
	}
	d.out("\nEverything was seen, in %.1f s.", time.Since(start).Seconds())
	return nil
}

func (d *demo) provision(ctx context.Context) error {
	body := api.ProvisionRepositoryRequest{
		TenantID: demoTenant, ProjectID: demoProject, ModuleID: "module-reservations-api", Name: demoRepo,
		Provider: "local", DefaultBranch: "main", Visibility: "private",
	}
	var r api.Repository
	if err := d.call(ctx, http.MethodPost, "/repositories", body, &r, http.StatusCreated); err != nil {
		return err
	}
	if err := want("status", r.Status, "Provisioned"); err != nil {
		return err
	}
	d.repo = r
	d.wrote(r.Commit, "%s is %s at %s", r.RepositoryID, r.Status, r.RemoteURL)
	d.expect(r.Commit, demoRef(desired.KindRepository, demoRepo))
	return nil
}

func (d *demo) branch(ctx context.Context) error {
	var b api.Branch
	body := api.CreateBranchRequest{TenantID: demoTenant, Name: demoFeature, FromBranch: "main"}
	if err := d.call(ctx, http.MethodPost, "/repositories/"+d.repo.RepositoryID+"/branches", body, &b, http.StatusCreated); err != nil {
		return err
	}
	if err := want("status", b.Status, "Created"); err != nil {
		return err
	}
	d.wrote(b.Commit, "%s is %s from %s", b.BranchID, b.Status, short(b.FromCommit))
	ref, err := d.refOf(ctx, b.BranchID)
	d.expect(b.Commit, ref)
	return err
}

func (d *demo) author(ctx context.Context) error {
	const controller = "public class ReservationsController {\n    // DELETE /reservations/{id}\n    public void Cancel(string id) { }\n}\n"
	body := map[string]any{
		"tenantId": demoTenant, "branch": demoFeature, "message": "feat: add reservation cancellation endpoint",
		"changes": []map[string]any{
			{"path": "src/Controllers/ReservationsController.cs", "operation": "add", "content": controller},
			{"path": "docs/cancellation.md", "operation": "add", "content": "# Cancellation\n\nA reservation may be cancelled until it begins.\n"},
		},
	}
	var c api.Commit
	if err := d.call(ctx, http.MethodPost, "/repositories/"+d.repo.RepositoryID+"/commits", body, &c, http.StatusCreated); err != nil {
		return err
	}
	if err := want("status", c.Status, "Committed"); err != nil {
		return err
	}
	d.wrote(c.Commit, "%s is %s as %s on %s", c.CommitID, c.Status, short(c.SHA), c.Branch)
	got, err := d.git(ctx, d.hosted(), "show", c.SHA+":src/Controllers/ReservationsController.cs")
	if err != nil {
		return err
	}
	if err := want("the file at the git host", got, strings.TrimSpace(controller)); err != nil {
		return err
	}
	d.head = c.SHA
	ref, err := d.refOf(ctx, c.CommitID)
	d.expect(c.Commit, ref)
	return err
}

func (d *demo) openPull(ctx context.Context) error {
	body := api.OpenPullRequestRequest{
		TenantID: demoTenant, RepositoryID: d.repo.RepositoryID, SourceBranch: demoFeature, TargetBranch: "main",
		Title: "Add reservation cancellation", Description: "Implements cancellation for module-reservations-api",
	}
	var p api.PullRequest
	if err := d.call(ctx, http.MethodPost, "/pull-requests", body, &p, http.StatusCreated); err != nil {
		return err
	}
	d.wrote(p.Commit, "%s is #%d, %s", p.PullRequestID, p.Number, p.Status)
	ref, err := d.refOf(ctx, p.PullRequestID)
	if err != nil {
		return err
	}
	d.expect(p.Commit, ref)
	d.pull = p.PullRequestID
	var read api.PullRequest
	if err := d.call(ctx, http.MethodGet, "/pull-requests/"+d.pull, nil, &read, http.StatusOK); err != nil {
		return err
	}
	if err := want("status", read.Status, "Open"); err != nil {
		return err
	}
	if err := want("head", read.HeadCommit, d.head); err != nil {
		return err
	}
	d.out("    read back: %q, mergeable %v, head %s, reviewers %s", read.Title, read.Mergeable != nil && *read.Mergeable, short(read.HeadCommit), strings.Join(read.Reviewers, ", "))
	return nil
}

func (d *demo) merge(ctx context.Context) error {
	var p api.PullRequest
	if err := d.call(ctx, http.MethodPost, "/pull-requests/"+d.pull+"/merge", api.MergePullRequestRequest{TenantID: demoTenant}, &p, http.StatusOK); err != nil {
		return err
	}
	if err := want("status", p.Status, "Merged"); err != nil {
		return err
	}
	d.wrote(p.Commit, "#%d is %s as %s", p.Number, p.Status, short(p.MergeCommit))
	d.expect(p.Commit, d.refs[d.pull])
	main, err := d.git(ctx, d.hosted(), "rev-parse", "refs/heads/main")
	if err != nil {
		return err
	}
	return want("main at the git host", main, p.MergeCommit)
}

// releaseDocuments is what the team member writes: a branch, with a remark that has to survive.
const releaseDocuments = `# Cut for the June release; kept until the next one is out.
apiVersion: plumbline.dev/v1
kind: Branch
metadata:
  name: reservations-api.release-2026.6
spec:
  repository: reservations-api
  name: release/2026.6   # from main, after the merge
  fromBranch: main
`

func (d *demo) teamPush(ctx context.Context) error {
	work := filepath.Join(d.dir, "alice")
	if _, err := d.git(ctx, d.dir, "clone", "-q", d.base+"/git/control/"+demoTenant+".git", work); err != nil {
		return err
	}
	if err := d.editRepositoryDocument(work); err != nil {
		return err
	}
	file := filepath.Join(work, "projects", demoProject, "team", "branches.yaml")
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(file, []byte(releaseDocuments), 0o600); err != nil {
		return err
	}
	for _, args := range [][]string{{"add", "-A"}, {"commit", "-q", "-m", "Cut release 2026.6; describe the service"}, {"push", "-q", "origin", "HEAD:main"}} {
		if _, err := d.git(ctx, work, args...); err != nil {
			return err
		}
	}
	commit, err := d.git(ctx, work, "rev-parse", "HEAD")
	if err != nil {
		return err
	}
	branch := demoRef(desired.KindBranch, "reservations-api.release-2026.6")
	if err := d.cli(ctx, "wait", branch.String(), demoRef(desired.KindRepository, demoRepo).String(), "--for=synced", "--commit", commit, "--timeout", "30s"); err != nil {
		return err
	}
	head, err := d.git(ctx, d.hosted(), "rev-parse", "refs/heads/"+demoRelease)
	if err != nil {
		return err
	}
	d.head = head
	d.wrote(commit, "alice pushed; %s is there at %s", demoRelease, short(head))
	d.expect(commit, branch, demoRef(desired.KindRepository, demoRepo))
	var r api.Repository
	if err := d.call(ctx, http.MethodGet, "/repositories/"+d.repo.RepositoryID, nil, &r, http.StatusOK); err != nil {
		return err
	}
	return want("description", r.Description, demoDescription)
}

const demoDescription = "Books, changes and cancels reservations"

// editRepositoryDocument adds a line to the document that the API wrote, as a person would.
func (d *demo) editRepositoryDocument(work string) error {
	path := filepath.Join(work, filepath.FromSlash(desired.Path(demoRef(desired.KindRepository, demoRepo))))
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	text := strings.Replace(string(data), "\nspec:\n", "\nspec:\n  description: "+demoDescription+"\n", 1)
	if text == string(data) {
		return fmt.Errorf("%s has no spec to edit", path)
	}
	return os.WriteFile(path, []byte(text), 0o600)
}

func (d *demo) badPush(ctx context.Context) error {
	work := filepath.Join(d.dir, "alice")
	file := filepath.Join(work, "projects", demoProject, "team", "branches.yaml")
	bad := strings.Replace(releaseDocuments, "fromBranch", "formBranch", 1)
	if err := os.WriteFile(file, []byte(bad), 0o600); err != nil {
		return err
	}
	if _, err := d.git(ctx, work, "commit", "-q", "-am", "Tidy up"); err != nil {
		return err
	}
	before, err := d.controlHead(ctx)
	if err != nil {
		return err
	}
	out, err := d.gitOutput(ctx, work, "push", "-q", "origin", "HEAD:main")
	if err == nil {
		return fmt.Errorf("the push was accepted")
	}
	place := "projects/" + demoProject + "/team/branches.yaml:9:3"
	if !strings.Contains(out, place) || !strings.Contains(out, "fromBranch") {
		return fmt.Errorf("the refusal names neither %s nor the right key:\n%s", place, out)
	}
	for _, line := range strings.Split(out, "\n") {
		if strings.Contains(line, "remote:") && strings.Contains(line, place) {
			d.out("    %s", oneLine(strings.TrimSpace(line)))
		}
	}
	after, err := d.controlHead(ctx)
	if err != nil {
		return err
	}
	if _, err := d.git(ctx, work, "reset", "-q", "--hard", "HEAD~1"); err != nil {
		return err
	}
	return want("head of the control repository", after, before)
}

func (d *demo) drift(ctx context.Context) error {
	if _, err := d.git(ctx, d.hosted(), "update-ref", "-d", "refs/heads/"+demoRelease); err != nil {
		return err
	}
	d.out("    refs/heads/%s was deleted in the hosted repository, by git on the disk", demoRelease)
	ref := demoRef(desired.KindBranch, "reservations-api.release-2026.6")
	var f api.Finding
	err := d.until(ctx, "the finding, and its end", func() (bool, error) {
		query := url.Values{"resourceId": {ref.ID()}, "open": {"all"}}
		found, err := listAll[api.Finding](ctx, d.rest, "/findings", query)
		for _, x := range found {
			if x.Cause == "drift" {
				f = x
			}
		}
		return f.Status == "Closed", err
	})
	if err != nil {
		return fmt.Errorf("%w (the finding: %q, %q)", err, f.Kind, f.Status)
	}
	d.finding = f
	d.out("    finding %s: %s (%s), wanted by %s:%d of %s, closed: %s", f.FindingID, f.Kind, f.Severity, f.Source.Path, f.Source.Line, short(f.Source.Commit), f.ResolvedBy)
	if err := want("resolved by", f.ResolvedBy, "revert"); err != nil {
		return err
	}
	head, err := d.git(ctx, d.hosted(), "rev-parse", "refs/heads/"+demoRelease)
	if err != nil {
		return err
	}
	d.out("    %s is back at %s", demoRelease, short(head))
	if err := want("head of the branch", head, d.head); err != nil {
		return err
	}
	return d.cli(ctx, "wait", ref.String(), "--for=synced", "--timeout", "30s", "-q")
}

func (d *demo) close(ctx context.Context) error {
	if err := d.stopDaemon(ctx); err != nil {
		return err
	}
	d.out("    exit code 0")
	return nil
}

func demoRef(kind desired.Kind, name string) desired.Ref {
	return desired.Ref{Tenant: demoTenant, Project: demoProject, Kind: kind, Name: name}
}

func want(what, got, wanted string) error {
	if got != wanted {
		return fmt.Errorf("%s: got %q, want %q", what, got, wanted)
	}
	return nil
}
