// SPDX-License-Identifier: Apache-2.0

package desired

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// ErrPrecondition is in the chain of a Conflict whose cause is an unmet PutOptions.IfMatch.
var ErrPrecondition = errors.New("the document is not the one that If-Match names")

// View is the tree an Edit is judged against: the very head that its commit will build on.
type View interface {
	Snapshot() *Snapshot
	// Read returns the bytes at a path, false when there is no file.
	Read(path string) ([]byte, bool, error)
}

// Write is one file of the result of an edit.
type Write struct {
	Path   string
	Data   []byte
	Delete bool
}

// Edit is a pure change to the tree of a control repository. It may run several times, one run after another, each
// on a fresh head, until it lands. No writes and no error means "already so": nothing is committed.
type Edit func(View) ([]Write, error)

// PutOptions are the preconditions of Put.
type PutOptions struct {
	IfMatch string // digest that the stored document must have; "" = any
	// Create: an existing document with another spec is a Conflict naming its id; one with the same spec is
	// "already so", whatever its labels.
	Create   bool
	Attached []Write // written in the same commit, when the document is
}

// Put stores a resource. A new document goes to Path(ref). An existing one is edited where it lives: only the
// bytes of the nodes that differ are replaced, and the result is parsed again and compared, so every other byte,
// comments included, stays. An equal document writes nothing. A resource with faults is Invalid, with pointers.
func Put(ref Ref, r *Resource, o PutOptions) Edit {
	var fit *fitted // kept from run to run: it follows from the arguments and the path alone
	return func(v View) ([]Write, error) {
		const op = "put document"
		if err := belongs(op, ref, v.Snapshot()); err != nil {
			return nil, err
		}
		e, exists := v.Snapshot().Get(ref)
		if err := precondition(op, ref, e, o.IfMatch); err != nil {
			return nil, err
		}
		path := Path(ref)
		if exists {
			path = e.Path
		}
		if fit == nil || fit.path != path {
			f, err := checked(op, ref, r, path)
			if err != nil {
				return nil, err
			}
			fit = f
		}
		want := fit.want
		switch {
		case exists && o.Create && sameSpec(e.Resource, want):
			return nil, nil
		case exists && o.Create:
			return nil, Errorf(op, ref, Conflict, "it exists with another spec, as %s: change that one, or choose another name", e.ID)
		case exists && e.Digest == Digest(want):
			return nil, nil
		}
		var w Write
		var err error
		if exists {
			w, err = change(v, e, want)
		} else {
			w, err = create(v, ref, fit.text)
		}
		if err != nil {
			return nil, err
		}
		return append([]Write{w}, o.Attached...), nil
	}
}

// Mutate edits the stored document of ref by fn, which gets a copy it may change. NotFound when there is none.
func Mutate(ref Ref, ifMatch string, fn func(*Resource) error) Edit {
	return func(v View) ([]Write, error) {
		const op = "change document"
		e, err := find(op, ref, v.Snapshot(), ifMatch)
		if err != nil {
			return nil, err
		}
		r, err := clone(e)
		if err != nil {
			return nil, err
		}
		if err := fn(r); err != nil {
			return nil, err
		}
		return Put(ref, r, PutOptions{})(v)
	}
}

// Remove deletes the document of ref: the file when it is alone there, else its bytes. NotFound when there is none.
// Files attached to it (<name>.d/) go with it.
func Remove(ref Ref, ifMatch string) Edit {
	return func(v View) ([]Write, error) {
		const op = "remove document"
		e, err := find(op, ref, v.Snapshot(), ifMatch)
		if err != nil {
			return nil, err
		}
		data, err := read(op, v, e)
		if err != nil {
			return nil, err
		}
		w := Write{Path: e.Path, Delete: true}
		if len(v.Snapshot().File(e.Path)) > 1 {
			w.Delete = false
			if w.Data, err = cut(Place{Tenant: ref.Tenant, Path: e.Path}, data, ref); err != nil {
				return nil, err
			}
		}
		attached, err := removeAttached(v, e)
		return append([]Write{w}, attached...), err
	}
}

// Join runs edits one after another, each seeing the writes of those before it, as one edit. A write that would
// bring a file into quarantine fails the whole.
func Join(edits ...Edit) Edit {
	return func(v View) ([]Write, error) {
		o := &overlay{under: v, snapshot: v.Snapshot(), writes: map[string]Write{}}
		for _, edit := range edits {
			writes, err := edit(o)
			if err != nil {
				return nil, err
			}
			if err := o.add(writes); err != nil {
				return nil, err
			}
		}
		out := make([]Write, 0, len(o.writes))
		for _, path := range slices.Sorted(maps.Keys(o.writes)) {
			w := o.writes[path]
			was, there, err := v.Read(path)
			if err != nil {
				return nil, err
			}
			if w.Delete && there || !w.Delete && (!there || !bytes.Equal(was, w.Data)) {
				out = append(out, w)
			}
		}
		return out, nil
	}
}

// overlay is a View with writes over another.
type overlay struct {
	under    View
	snapshot *Snapshot
	writes   map[string]Write
}

func (o *overlay) Snapshot() *Snapshot { return o.snapshot }

func (o *overlay) Read(path string) ([]byte, bool, error) {
	if w, ok := o.writes[path]; ok {
		return w.Data, !w.Delete, nil
	}
	return o.under.Read(path)
}

func (o *overlay) add(writes []Write) error {
	d := Delta{Commit: o.snapshot.Commit()}
	for _, w := range writes {
		o.writes[w.Path] = w
		d.Files = append(d.Files, File{Path: w.Path, Data: w.Data, Deleted: w.Delete})
	}
	next, c := o.snapshot.Advance(d, nil)
	if len(c.Quarantined) > 0 {
		return c.Quarantined[0].Err
	}
	o.snapshot = next
	return nil
}

// find is the entry that is to be changed or removed.
func find(op string, ref Ref, s *Snapshot, ifMatch string) (*Entry, error) {
	e, ok := s.Get(ref)
	if err := belongs(op, ref, s); err != nil {
		return nil, err
	}
	if err := precondition(op, ref, e, ifMatch); err != nil {
		return nil, err
	}
	if !ok {
		return nil, Errorf(op, ref, NotFound, "there is no such document")
	}
	return e, nil
}

func belongs(op string, ref Ref, s *Snapshot) error {
	if ref.Tenant == s.Tenant() {
		return nil
	}
	return Errorf(op, ref, Invalid, "the document belongs into another repository than this one")
}

// precondition compares the digest that the caller saw with that of the stored document.
func precondition(op string, ref Ref, e *Entry, ifMatch string) error {
	switch {
	case ifMatch == "" || e != nil && e.Digest == ifMatch:
		return nil
	case e == nil:
		return E(op, ref, Conflict, fmt.Errorf("%w: there is no document %s", ErrPrecondition, ref.ID()))
	}
	return E(op, ref, Conflict, fmt.Errorf("%w: %s has changed since it was read; read it again", ErrPrecondition, e.ID))
}

// fitted is a resource as it would be read back from a file at a path.
type fitted struct {
	path string
	want *Resource
	text []byte // the document
}

// checked is r as it would be read back from a file at path, with what goes without saying filled in.
func checked(op string, ref Ref, r *Resource, path string) (*fitted, error) {
	c := *r
	if c.APIVersion == "" {
		c.APIVersion = APIVersion
	}
	if c.Kind == "" {
		c.Kind = ref.Kind
	}
	if c.Metadata.Name == "" {
		c.Metadata.Name = ref.Name
	}
	faults := faults(c.Validate(ref))
	info, known := ref.Kind.Info()
	if fault := (Place{Tenant: ref.Tenant}).allows(info, ref.Project); known && fault != "" {
		faults.add("/kind", fault)
	}
	if c.Kind != ref.Kind {
		faults.add("/kind", "does not agree with the kind that the resource is stored under")
	}
	if len(faults) > 0 {
		return nil, &Error{Class: Invalid, Op: op, Ref: ref, Fields: faults[:min(len(faults), maxFaults)]}
	}
	text, err := Encode(&c)
	if err != nil {
		return nil, err
	}
	docs, err := ParseFile(Place{Tenant: ref.Tenant, Path: path}, text)
	if err != nil {
		return nil, inDocument(op, ref, err)
	}
	return &fitted{path: path, want: docs[0].Resource, text: text}, nil
}

// inDocument turns faults of a text that we wrote into faults of the resource: its lines are nobody's.
func inDocument(op string, ref Ref, err error) error {
	var e *Error
	if !errors.As(err, &e) {
		return E(op, ref, Internal, err)
	}
	out := &Error{Class: e.Class, Op: op, Ref: ref, Err: e.Err}
	for _, f := range e.Fields {
		out.Fields = append(out.Fields, FieldError{Pointer: f.Pointer, Detail: f.Detail})
	}
	return out
}

func sameSpec(a, b *Resource) bool {
	x, _ := resourceValue(a, false).get("spec")
	y, _ := resourceValue(b, false).get("spec")
	return bytes.Equal(canonical(nil, x), canonical(nil, y))
}

// clone is a copy of an entry's resource that shares nothing with it.
func clone(e *Entry) (*Resource, error) {
	text, err := Encode(e.Resource)
	if err != nil {
		return nil, err
	}
	docs, err := ParseFile(Place{Tenant: e.Ref.Tenant, Path: e.Path}, text)
	if err != nil {
		return nil, inDocument("copy document", e.Ref, err)
	}
	return docs[0].Resource, nil
}

// read gets the file of an entry, and refuses one whose present text is not the one in force.
func read(op string, v View, e *Entry) ([]byte, error) {
	if _, bad := v.Snapshot().InQuarantine(e.Path); bad {
		return nil, quarantined(op, e.Ref, e.Path)
	}
	data, ok, err := v.Read(e.Path)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, Errorf(op, e.Ref, Internal, "the file of the document is not in the tree: %s", e.Path)
	}
	return data, nil
}

func quarantined(op string, ref Ref, path string) error {
	return Errorf(op, ref, Conflict, "%s is declared in %s, which is in quarantine and must be mended first", ref.ID(), path)
}

// change edits an existing document where it lives.
func change(v View, e *Entry, want *Resource) (Write, error) {
	data, err := read("put document", v, e)
	if err != nil {
		return Write{}, err
	}
	text, err := rewrite(Place{Tenant: e.Ref.Tenant, Path: e.Path}, data, e.Ref, want)
	return Write{Path: e.Path, Data: text}, err
}

// create makes a new file, or adds a document to the file that is at the path already.
func create(v View, ref Ref, text []byte) (Write, error) {
	const op = "put document"
	for f := range v.Snapshot().wanted.from(ref.String()+"\x00", "") {
		return Write{}, quarantined(op, ref, f.path)
	}
	path := Path(ref)
	if _, bad := v.Snapshot().InQuarantine(path); bad {
		return Write{}, quarantined(op, ref, path)
	}
	data, ok, err := v.Read(path)
	if err != nil || !ok || len(bytes.TrimSpace(data)) == 0 {
		return Write{Path: path, Data: text}, err
	}
	eol := newSplice(data).eol
	out := slices.Clone(data)
	if out[len(out)-1] != '\n' {
		out = append(out, eol...)
	}
	out = append(out, "---"+eol...)
	out = append(out, bytes.ReplaceAll(text, []byte("\n"), []byte(eol))...)
	if _, err := ParseFile(Place{Tenant: ref.Tenant, Path: path}, out); err != nil {
		return Write{}, inDocument(op, ref, err)
	}
	return Write{Path: path, Data: out}, nil
}

func removeAttached(v View, e *Entry) ([]Write, error) {
	spec, _ := e.Resource.Spec.(*CommitSpec)
	if spec == nil {
		return nil, nil
	}
	var out []Write
	for _, c := range spec.Changes {
		path := AttachedPath(e.Path, e.Ref.Name, c.Digest)
		if c.Digest == "" || slices.ContainsFunc(out, func(w Write) bool { return w.Path == path }) {
			continue
		}
		_, ok, err := v.Read(path)
		if err != nil {
			return nil, err
		}
		if ok {
			out = append(out, Write{Path: path, Delete: true})
		}
	}
	return out, nil
}
