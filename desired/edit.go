// SPDX-License-Identifier: Apache-2.0

package desired

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

// Edit is a pure change to the tree of a control repository. It may run several times, each time on a fresh head,
// until it lands. No writes and no error means "already so": nothing is committed.
type Edit func(View) ([]Write, error)

// PutOptions are the preconditions of Put.
type PutOptions struct {
	IfMatch  string // digest that the stored document must have; "" = any
	Create   bool   // an existing document with another spec is a Conflict naming its id
	Attached []Write
}

// Put stores a resource. A new document goes to Path(ref). An existing one is edited where it lives: only the
// bytes of the nodes that differ are replaced, and the result is parsed again and compared, so every other byte,
// comments included, stays. An equal document writes nothing.
func Put(ref Ref, r *Resource, o PutOptions) Edit { panic("not built") }

// Mutate edits the stored document of ref by fn, which gets a copy it may change. NotFound when there is none.
func Mutate(ref Ref, ifMatch string, fn func(*Resource) error) Edit { panic("not built") }

// Remove deletes the document of ref: the file when it is alone there, else its bytes. NotFound when there is none.
// Files attached to it (<name>.d/) go with it.
func Remove(ref Ref, ifMatch string) Edit { panic("not built") }

// Join runs edits one after another, each seeing the writes of those before it, as one edit.
func Join(edits ...Edit) Edit { panic("not built") }
