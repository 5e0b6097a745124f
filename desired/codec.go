// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"
)

// Limits of a file in a control repository.
const (
	MaxFileBytes     = 1 << 20 // 1 MiB a file
	MaxFileDocuments = 64      // documents in a file
	maxDepth         = 32      // levels of nesting in a document
	maxFaults        = 20      // faults reported of a file
)

// Document is one document of a file, with its place.
type Document struct {
	Resource *Resource
	Ref      Ref
	Index    int    // 0-based position in the file, not counting empty documents
	Line     int    // 1-based line of its first key
	Start    int    // byte range [Start, End) in the file
	End      int    //
	Digest   string // hex SHA-256 of the canonical JSON of the document; the API's ETag
}

// ParseFile decodes every document of a file strictly. The error is an *Error of class Invalid whose Fields carry
// file:line:column, a detail that says what to do, and "did you mean" for unknown kinds and keys; it lists every
// fault found, at most 20. A file with a fault yields no documents. Documents without content are skipped.
func ParseFile(p Place, data []byte) ([]Document, error) {
	f := file{place: p, data: data}
	docs := f.parse()
	if len(f.faults) > 0 {
		return nil, f.err()
	}
	return docs, nil
}

// Digest is the hex SHA-256 of the canonical JSON of r, without metadata.tenant and metadata.project, which only
// repeat where the document lies.
func Digest(r *Resource) string {
	sum := sha256.Sum256(canonical(make([]byte, 0, 1024), resourceValue(r, false)))
	return hex.EncodeToString(sum[:])
}

// Encode writes r as one YAML document, keys in the order of the types, every string scalar that could be misread
// quoted. ParseFile(Encode(r)) gives an equal resource. It does not judge r: that is Validate's business.
func Encode(r *Resource) ([]byte, error) {
	if r == nil || r.Spec == nil {
		return nil, Errorf("encode document", Ref{}, Invalid, "a resource needs a spec")
	}
	v := resourceValue(r, true)
	if at := v.invalid(); at != "" {
		return nil, &Error{Class: Invalid, Op: "encode document", Fields: []FieldError{{Pointer: at, Detail: "must be valid UTF-8"}}}
	}
	w := writer{eol: "\n", step: 2}
	w.block(v, 0)
	return w.out, nil
}

// Equal reports whether two resources say the same: an empty list is no list.
func Equal(a, b *Resource) bool { return Digest(a) == Digest(b) }

// file is one run of ParseFile.
type file struct {
	place  Place
	data   []byte
	faults []FieldError
	tries  int // made to find the line of a syntax error
}

func (f *file) parse() []Document {
	if fault := f.place.fault(); fault != "" {
		f.report(0, 0, "", fault)
		return nil
	}
	if len(f.data) > MaxFileBytes {
		f.report(0, 0, "", "the file is larger than 1 MiB: split it")
		return nil
	}
	if at, fault := illegible(f.data); at >= 0 {
		line, column := lineColumn(f.data, at)
		f.report(line, column, "", fault)
		return nil
	}
	var docs []Document
	for _, c := range split(f.data) {
		if c.blank(f.data) {
			continue
		}
		if len(docs) == MaxFileDocuments {
			f.report(c.line, 1, "", "the file has more than "+strconv.Itoa(MaxFileDocuments)+" documents: split it")
			return nil
		}
		d := f.document(c)
		d.Index = len(docs)
		docs = append(docs, d)
	}
	f.checkTwins(docs)
	return docs
}

// checkTwins refuses two documents for one resource.
func (f *file) checkTwins(docs []Document) {
	seen := make(map[Ref]int, len(docs))
	for _, d := range docs {
		if d.Ref.Name == "" {
			continue // its faults are reported
		}
		if line, twice := seen[d.Ref]; twice {
			f.report(d.Line, 1, "", "this resource is declared at line "+strconv.Itoa(line)+" already: remove one of the two or rename it")
		} else {
			seen[d.Ref] = d.Line
		}
	}
}

// full reports whether so much is wrong that it is no use to look for more.
func (f *file) full() bool { return len(f.faults) > 10*maxFaults }

// report notes a fault. The first about a thing at a place wins: what follows from it is noise.
func (f *file) report(line, column int, pointer, detail string) {
	if f.full() {
		return
	}
	for _, o := range f.faults {
		if line > 0 && o.Line == line && o.Column == column && o.Pointer == pointer {
			return
		}
	}
	f.faults = append(f.faults, FieldError{Pointer: pointer, File: f.place.Path, Line: line, Column: column, Detail: detail})
}
