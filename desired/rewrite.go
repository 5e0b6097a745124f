// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"bytes"
	"slices"

	"go.yaml.in/yaml/v3"
)

// rewrite makes the document of ref in a file say what want says. Metadata.tenant and project stay as they are.
// The smallest change that does it wins: single nodes, then metadata or spec as a whole, then the document. Each
// is parsed again, and counts only if this document says exactly what is wanted and all others what they said.
func rewrite(p Place, data []byte, ref Ref, want *Resource) ([]byte, error) {
	const op = "put document"
	docs, err := ParseFile(p, data)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(docs, func(d Document) bool { return d.Ref == ref })
	if i < 0 {
		return nil, Errorf(op, ref, Internal, "the document is not in its file: %s", p.Path)
	}
	r := *want
	r.Metadata.Tenant, r.Metadata.Project = docs[i].Resource.Metadata.Tenant, docs[i].Resource.Metadata.Project
	c, v := contentChunks(data)[i], resourceValue(&r, true)
	docs[i].Digest = Digest(&r)
	for _, attempt := range []func(*splice, *yaml.Node, value){spliceNodes, spliceParts, spliceRoot} {
		root, err := parseTree(data[c.lo:c.end])
		if err != nil {
			return nil, E(op, ref, Internal, err)
		}
		s := newSplice(data[c.lo:c.end])
		attempt(s, root, v)
		if text := s.apply(); text != nil {
			if out := slices.Concat(data[:c.lo], text, data[c.end:]); says(p, out, docs) {
				return out, nil
			}
		}
	}
	if out := replaceChunk(data, c, v); says(p, out, docs) {
		return out, nil
	}
	return nil, Errorf(op, ref, Conflict, "the document at %s:%d cannot be edited in place: change it by a commit of your own", p.Path, docs[i].Line)
}

// says reports whether a file has exactly these documents, by ref and digest.
func says(p Place, data []byte, docs []Document) bool {
	got, err := ParseFile(p, data)
	return err == nil && slices.EqualFunc(got, docs, func(a, b Document) bool {
		return a.Ref == b.Ref && a.Digest == b.Digest
	})
}

// contentChunks are the chunks that hold documents.
func contentChunks(data []byte) []chunk {
	return slices.DeleteFunc(split(data), func(c chunk) bool { return c.blank(data) })
}

func spliceNodes(s *splice, root *yaml.Node, v value) { s.merge(root, v, -1, false) }

func spliceParts(s *splice, root *yaml.Node, v value) {
	flow := root.Style&yaml.FlowStyle != 0
	for i := 0; i+1 < len(root.Content); i += 2 {
		if x, ok := v.get(root.Content[i].Value); ok && !same(root.Content[i+1], x) {
			s.whole(root.Content[i+1], x, root.Column-1, flow)
		}
	}
}

func spliceRoot(s *splice, root *yaml.Node, v value) { s.whole(root, v, -1, false) }

// replaceChunk writes the document anew, comments lost. It is the last resort.
func replaceChunk(data []byte, c chunk, v value) []byte {
	eol := newSplice(data).eol
	w := writer{eol: eol, step: 2}
	w.block(v, 0)
	if c.marked && !bytes.HasSuffix(data[:c.start], []byte("\n")) {
		w.out = append([]byte(eol), w.out...)
	}
	return slices.Concat(data[:c.start], w.out, data[c.end:])
}

// cut takes the document of ref out of a file that has others, whose bytes stay.
func cut(p Place, data []byte, ref Ref) ([]byte, error) {
	const op = "remove document"
	docs, err := ParseFile(p, data)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(docs, func(d Document) bool { return d.Ref == ref })
	if i < 0 {
		return nil, Errorf(op, ref, Internal, "the document is not in its file: %s", p.Path)
	}
	target := contentChunks(data)[i]
	var before, after chunk
	for _, c := range split(data) {
		if c.hi == target.lo {
			before = c
		}
		if c.lo == target.hi {
			after = c
		}
	}
	// Where the documents on both sides would now run together, a marker keeps them apart.
	marker := ""
	if before.hi > 0 && !before.closed && after.hi > 0 && !after.marked {
		marker = "---" + newSplice(data).eol
	}
	out := slices.Concat(data[:target.lo], []byte(marker), data[target.hi:])
	if !says(p, out, slices.Delete(slices.Clone(docs), i, i+1)) {
		return nil, Errorf(op, ref, Conflict, "the document at %s:%d cannot be taken out: remove it by a commit of your own", p.Path, docs[i].Line)
	}
	return out, nil
}
