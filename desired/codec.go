// SPDX-License-Identifier: Apache-2.0

package desired

// Limits of a file in a control repository.
const (
	MaxFileBytes     = 1 << 20 // 1 MiB a file
	MaxFileDocuments = 64      // documents in a file
)

// Document is one document of a file, with its place.
type Document struct {
	Resource *Resource
	Ref      Ref
	Index    int    // 0-based position in the file
	Line     int    // 1-based line of its first key
	Start    int    // byte range [Start, End) in the file
	End      int    //
	Digest   string // hex SHA-256 of the canonical JSON of the document; the API's ETag
}

// Place says to which repository and path a file belongs; it decides tenant, project and the allowed kinds.
type Place struct {
	Tenant string // "" = platform repository
	Path   string // slash-separated, relative to the root
}

// ParseFile decodes every document of a file strictly. The error is an *Error of class Invalid whose Fields carry
// file:line:column, a detail that says what to do, and "did you mean" for unknown kinds and keys; it lists every
// fault found, at most 20. A file with a fault yields no documents.
func ParseFile(p Place, data []byte) ([]Document, error) { panic("not built") }

// Managed reports whether path is one that the loader reads (a .yaml or .yml file under a known prefix); other
// files are ignored.
func (p Place) Managed() bool { panic("not built") }

// Encode writes r as one YAML document, keys in the order of the types, every string scalar that could be misread
// quoted. ParseFile(Encode(r)) gives an equal resource.
func Encode(r *Resource) ([]byte, error) { panic("not built") }

// Digest is the hex SHA-256 of the canonical JSON of r.
func Digest(r *Resource) string { panic("not built") }

// Path is where the API puts the document of ref: projects/<p>/<plural>/<2 hex>/<name>.yaml, or <root>/<name>.yaml
// for kinds outside projects.
func Path(ref Ref) string { panic("not built") }

// ValidName checks a resource name: [a-z0-9][a-z0-9._-]{0,127}.
func ValidName(s string) error { panic("not built") }

// ValidTenant checks a tenant or project name: [a-z0-9][a-z0-9-]{0,62}.
func ValidTenant(s string) error { panic("not built") }

// ValidRefName checks a git branch name (without refs/heads/) by git-check-ref-format's rules, and refuses names
// that begin with "-" or contain control characters.
func ValidRefName(s string) error { panic("not built") }

// Schema returns the JSON Schema (2020-12) of a kind's document, generated from the types.
func Schema(k Kind) ([]byte, error) { panic("not built") }
