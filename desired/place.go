// SPDX-License-Identifier: Apache-2.0

package desired

import "strings"

const projectsRoot = "projects"

// Place says to which repository and path a file belongs; it decides tenant, project and the allowed kinds.
// An empty Path stands for documents that come in a request: the project is then that of metadata.project, and
// every kind of the repository is allowed.
type Place struct {
	Tenant  string // "" = platform repository
	Path    string // slash-separated, relative to the root
	Project string // with an empty Path: of documents that name none but may belong to one
}

// Managed reports whether path is one that the loader reads (a .yaml or .yml file under a known prefix); other
// files are ignored.
func (p Place) Managed() bool {
	root, rest, ok := strings.Cut(p.Path, "/")
	if !ok || rest == "" || !p.root(root) {
		return false
	}
	// Other spellings of the ending are read too, to be refused: a file that is silently ignored is worse.
	l := strings.ToLower(rest)
	return strings.HasSuffix(l, ".yaml") || strings.HasSuffix(l, ".yml")
}

func (p Place) root(s string) bool {
	if p.Tenant == "" {
		return s == "tenants" || s == "providers" || s == "policies"
	}
	return s == projectsRoot || s == "providers" || s == "policies"
}

// project is the project of a path, "" outside projects.
func (p Place) project() string {
	rest, ok := strings.CutPrefix(p.Path, projectsRoot+"/")
	if !ok || p.Tenant == "" {
		return ""
	}
	name, _, _ := strings.Cut(rest, "/")
	return name
}

// fault says what is wrong with the path itself, "" when nothing is.
func (p Place) fault() string {
	if p.Path == "" {
		return ""
	}
	if !p.Managed() {
		return "documents are read from .yaml and .yml files below " + p.roots() + " only"
	}
	segments := strings.Split(p.Path, "/")
	for _, s := range segments {
		if s == "." || s == ".." || len(s) > 255 || !wordOf("0"+s, 256, "._-") || s == "" {
			return "every part of the path must consist of a-z, 0-9, '.', '_', '-': rename the file or folder"
		}
	}
	if segments[0] == projectsRoot && p.Tenant != "" {
		if len(segments) < 3 {
			return "files of a project belong in projects/<project>/: move the file there"
		}
		if ValidTenant(segments[1]) != nil {
			return "the project's folder must have 1 to 63 characters of a-z, 0-9, '-': rename it"
		}
	}
	return ""
}

func (p Place) roots() string {
	if p.Tenant == "" {
		return "tenants/, providers/ and policies/"
	}
	return "projects/<project>/, providers/ and policies/"
}

// allows says whether documents of a kind may live at p; the answer "" means yes.
func (p Place) allows(info KindInfo, project string) string {
	platform := p.Tenant == ""
	switch {
	case platform && !info.Platform:
		return string(info.Kind) + " documents belong in a tenant's control repository, not in the platform repository"
	case !platform && !info.Control:
		return string(info.Kind) + " documents belong in the platform repository, below " + info.Root + "/"
	case project != "" && !info.Project:
		return string(info.Kind) + " documents belong to no project: put them below " + info.Root + "/"
	case project == "" && info.Root == "":
		return string(info.Kind) + " documents belong to a project: put them below projects/<project>/"
	}
	if root, _, ok := strings.Cut(p.Path, "/"); ok && project == "" && root != info.Root {
		return string(info.Kind) + " documents belong below " + info.Root + "/"
	}
	return ""
}
