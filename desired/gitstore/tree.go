// SPDX-License-Identifier: Apache-2.0

package gitstore

import (
	"fmt"
	"slices"
	"strings"

	"github.com/connectsoft/plumbline/desired"
)

// maxTreeDepth bounds how deep directories may be nested, so that a hostile tree cannot exhaust the stack.
const maxTreeDepth = 1024

// FileChange is one difference between two trees.
type FileChange struct {
	Path     string
	Old, New TreeEntry // zero Mode = absent; Name is the last path element
}

// DiffTrees walks two trees (zero = empty) and reports each file that differs, in path order, skipping equal
// subtrees by id. fn stops the walk by returning an error. Names are reported as they are, however odd.
func DiffTrees(r Reader, old, new Hash, fn func(FileChange) error) error {
	d := differ{r: r, fn: fn}
	return d.trees("", old, new, 0)
}

type differ struct {
	r  Reader
	fn func(FileChange) error
}

func rawTree(r Reader, h Hash) ([]byte, error) {
	if h.IsZero() {
		return nil, nil
	}
	return readAs(r, h, TreeObject)
}

// cursor walks the entries of an encoded tree.
type cursor struct {
	raw  []byte
	at   rawEntry
	more bool
}

func newCursor(raw []byte) (*cursor, error) {
	c := &cursor{raw: raw}
	return c, c.next()
}

func (c *cursor) next() error {
	if c.more = c.at.end < len(c.raw); !c.more {
		return nil
	}
	e, ok := nextEntry(c.raw, c.at.end)
	if !ok {
		return fmt.Errorf("tree entry at byte %d is malformed: %w", c.at.end, ErrCorrupt)
	}
	c.at = e
	return nil
}

func (d *differ) trees(dir string, old, new Hash, depth int) error {
	if old == new {
		return nil
	}
	if depth > maxTreeDepth {
		return fmt.Errorf("directories are nested deeper than %d: %w", maxTreeDepth, ErrCorrupt)
	}
	a, err := d.open(old)
	if err != nil {
		return err
	}
	b, err := d.open(new)
	if err != nil {
		return err
	}
	for a.more || b.more {
		if err := d.step(dir, a, b, depth); err != nil {
			return err
		}
	}
	return nil
}

func (d *differ) open(h Hash) (*cursor, error) {
	raw, err := rawTree(d.r, h)
	if err != nil {
		return nil, err
	}
	return newCursor(raw)
}

// step compares the entries that come first and moves past them.
func (d *differ) step(dir string, a, b *cursor, depth int) error {
	order := 0
	switch {
	case !b.more:
		order = -1
	case !a.more:
		order = 1
	default:
		order = compareEntries(a.at.name, a.at.isTree(), b.at.name, b.at.isTree())
	}
	if order == 0 && a.at.hash == b.at.hash && a.at.mode == b.at.mode {
		return next(a, b)
	}
	var old, new rawEntry
	if order <= 0 {
		old = a.at
	}
	if order >= 0 {
		new = b.at
	}
	if err := d.report(dir, old, new, depth); err != nil {
		return err
	}
	switch {
	case order < 0:
		return a.next()
	case order > 0:
		return b.next()
	}
	return next(a, b)
}

func next(a, b *cursor) error {
	if err := a.next(); err != nil {
		return err
	}
	return b.next()
}

// report tells one difference; directories are walked. Both entries are of the same kind or one is absent.
func (d *differ) report(dir string, old, new rawEntry, depth int) error {
	name := string(old.name)
	if new.mode != 0 {
		name = string(new.name)
	}
	path := name
	if dir != "" {
		path = dir + "/" + name
	}
	if old.isTree() || new.isTree() {
		return d.trees(path, old.hash, new.hash, depth+1)
	}
	c := FileChange{Path: path}
	if old.mode != 0 {
		c.Old = old.entry()
	}
	if new.mode != 0 {
		c.New = new.entry()
	}
	return d.fn(c)
}

// Lookup finds the entry at a path in a tree; false when absent. The empty path is the root.
func Lookup(r Reader, root Hash, path string) (TreeEntry, bool, error) {
	at := TreeEntry{Mode: modeTree, Hash: root}
	if path == "" {
		return at, true, nil
	}
	for name := range strings.SplitSeq(path, "/") {
		if at.Mode != modeTree {
			return TreeEntry{}, false, nil
		}
		raw, err := rawTree(r, at.Hash)
		if err != nil {
			return TreeEntry{}, false, err
		}
		e, found, err := findEntry(raw, name)
		if err != nil || !found {
			return TreeEntry{}, false, err
		}
		at = e.entry()
	}
	return at, true, nil
}

// findEntry finds a name in an encoded tree.
func findEntry(raw []byte, name string) (rawEntry, bool, error) {
	for off := 0; off < len(raw); {
		e, ok := nextEntry(raw, off)
		if !ok {
			return e, false, fmt.Errorf("tree entry at byte %d is malformed: %w", off, ErrCorrupt)
		}
		if string(e.name) == name {
			return e, true, nil
		}
		off = e.end
	}
	return rawEntry{}, false, nil
}

// WriteTree applies file writes to a tree inside a batch and returns the new root; an entry with zero Mode deletes
// the path, be it a file or a directory. Names of the entries are ignored: the keys are the paths. Empty
// directories vanish; a tree without files is the empty tree. A file in the place of a directory, or below a file,
// is refused unless the same changes delete what is in the way. Cost: the directories on the changed paths.
func (b *Batch) WriteTree(root Hash, changes map[string]TreeEntry) (Hash, error) {
	list := make([]pathChange, 0, len(changes))
	for path, e := range changes {
		if err := checkPath(path); err != nil {
			return Zero, err
		}
		if err := checkEntry(path, e); err != nil {
			return Zero, err
		}
		list = append(list, pathChange{path, path, e})
	}
	// "a" comes directly before "a/b": the slash must sort before every other byte for that.
	slices.SortFunc(list, func(x, y pathChange) int { return comparePaths(x.rest, y.rest) })
	h, empty, err := b.writeDir(root, list, 0)
	if err != nil {
		return Zero, err
	}
	if empty {
		return b.addTree(nil, Zero), nil
	}
	return h, nil
}

type pathChange struct {
	path  string
	rest  string // of path, below the directory at hand
	entry TreeEntry
}

func comparePaths(a, b string) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	switch {
	case n == len(a) || n == len(b):
		return len(a) - len(b)
	case a[n] == '/':
		return -1
	case b[n] == '/':
		return 1
	}
	return int(a[n]) - int(b[n])
}

// checkPath refuses paths that no git program would check out.
func checkPath(path string) error {
	bad := func(why string) error {
		return desired.Errorf("write tree", desired.Ref{}, desired.Invalid, "%q is no valid path: %s", path, why)
	}
	if strings.Count(path, "/") >= maxTreeDepth {
		return bad("too many directories")
	}
	for name := range strings.SplitSeq(path, "/") {
		if why := badName(name); why != "" {
			return bad(why)
		}
	}
	return nil
}

// checkEntry refuses modes that no git program writes.
func checkEntry(path string, e TreeEntry) error {
	switch e.Mode {
	case 0:
		return nil
	case 0o100644, 0o100755, 0o120000, modeLink, modeTree:
		if !e.Hash.IsZero() {
			return nil
		}
	}
	return desired.Errorf("write tree", desired.Ref{}, desired.Invalid,
		"%q has mode %o and object %s: a mode that git knows and an object are needed", path, e.Mode, e.Hash)
}

// writeDir applies changes below one directory. old may be zero.
func (b *Batch) writeDir(old Hash, changes []pathChange, depth int) (h Hash, empty bool, err error) {
	raw, err := rawTree(b, old)
	if err != nil {
		return Zero, false, err
	}
	edits, err := b.dirEdits(raw, changes, depth)
	if err != nil {
		return Zero, false, err
	}
	out, err := applyEdits(raw, edits)
	if err != nil {
		return Zero, false, err
	}
	if len(out) == 0 {
		return Zero, true, nil
	}
	if len(edits) == 0 && !old.IsZero() {
		return old, false, nil
	}
	return b.addTree(out, old), false, nil
}

// dirEdit replaces, adds or (with zero Mode) removes the entry of one name.
type dirEdit struct {
	entry TreeEntry
	found bool
	was   rawEntry
}

// dirEdits turns changes of paths into edits of the names in one directory; those that change nothing are left out.
func (b *Batch) dirEdits(raw []byte, changes []pathChange, depth int) ([]dirEdit, error) {
	var edits []dirEdit
	find, err := finder(raw, len(changes))
	if err != nil {
		return nil, err
	}
	for len(changes) > 0 {
		name, _, _ := strings.Cut(changes[0].rest, "/")
		n := 1
		for n < len(changes) && strings.HasPrefix(changes[n].rest, name+"/") {
			n++
		}
		group := changes[:n]
		changes = changes[n:]
		was, found, err := find(name)
		if err != nil {
			return nil, err
		}
		e, err := b.nameEdit(name, was, found, group, depth)
		if err != nil {
			return nil, err
		}
		if !found && e.Mode == 0 || found && e.Mode == was.mode && e.Hash == was.hash {
			continue
		}
		edits = append(edits, dirEdit{entry: e, found: found, was: was})
	}
	return edits, nil
}

// finder returns a function that finds names in an encoded tree, made for about n questions.
func finder(raw []byte, n int) (func(name string) (rawEntry, bool, error), error) {
	if n < 8 {
		return func(name string) (rawEntry, bool, error) { return findEntry(raw, name) }, nil
	}
	byName := make(map[string]rawEntry)
	for off := 0; off < len(raw); {
		e, ok := nextEntry(raw, off)
		if !ok {
			return nil, fmt.Errorf("tree entry at byte %d is malformed: %w", off, ErrCorrupt)
		}
		byName[string(e.name)] = e
		off = e.end
	}
	return func(name string) (rawEntry, bool, error) {
		e, ok := byName[name]
		return e, ok, nil
	}, nil
}

// nameEdit decides what becomes of one name: group holds at most one change of the name itself, first, and then
// those below it.
func (b *Batch) nameEdit(name string, was rawEntry, found bool, group []pathChange, depth int) (TreeEntry, error) {
	var now TreeEntry
	if found {
		now = TreeEntry{Name: name, Mode: was.mode, Hash: was.hash}
	}
	var self *pathChange
	if group[0].rest == name {
		self, group = &group[0], group[1:]
		if self.entry.Mode == 0 {
			now = TreeEntry{} // what is below is written afresh
		}
	}
	conflict := func(path, why string) error {
		return desired.Errorf("write tree", desired.Ref{}, desired.Conflict, "%q %s; delete that first or choose another path", path, why)
	}
	if len(group) > 0 {
		below := Zero
		if now.Mode == modeTree {
			below = now.Hash
		}
		for i := range group {
			group[i].rest = group[i].rest[len(name)+1:]
		}
		h, empty, err := b.writeDir(below, group, depth+1)
		if err != nil {
			return TreeEntry{}, err
		}
		switch {
		case !empty && now.Mode != 0 && now.Mode != modeTree:
			return TreeEntry{}, conflict(group[0].path, "lies below a file")
		case !empty:
			now = TreeEntry{Name: name, Mode: modeTree, Hash: h}
		case now.Mode == modeTree:
			now = TreeEntry{}
		}
	}
	if self == nil || self.entry.Mode == 0 {
		return now, nil
	}
	if now.Mode == modeTree && self.entry.Mode != modeTree {
		return TreeEntry{}, conflict(self.path, "is a directory")
	}
	return TreeEntry{Name: name, Mode: self.entry.Mode, Hash: self.entry.Hash}, nil
}

// applyEdits rewrites an encoded tree. A few edits are spliced in, many are merged.
func applyEdits(raw []byte, edits []dirEdit) ([]byte, error) {
	const few = 4
	if len(edits) > few {
		return mergeEdits(raw, edits)
	}
	for i, e := range edits {
		var err error
		if i > 0 && e.found { // the splice before moved the entry
			if e.was, _, err = findEntry(raw, e.entryName()); err != nil {
				return nil, err
			}
		}
		if raw, err = spliceEntry(raw, e); err != nil {
			return nil, err
		}
	}
	return raw, nil
}

func (e *dirEdit) entryName() string {
	if e.found {
		return string(e.was.name)
	}
	return e.entry.Name
}

// spliceEntry applies one edit to a copy of an encoded tree.
func spliceEntry(raw []byte, e dirEdit) ([]byte, error) {
	from, to := e.was.start, e.was.end
	isTree := e.entry.Mode == modeTree
	if e.entry.Mode != 0 && (!e.found || e.was.isTree() != isTree) {
		// The entry is new or moves, because directories sort in another way.
		if e.found {
			removed, err := spliceEntry(raw, dirEdit{found: true, was: e.was})
			if err != nil {
				return nil, err
			}
			raw = removed
		}
		from = 0
		for from < len(raw) {
			at, ok := nextEntry(raw, from)
			if !ok {
				return nil, fmt.Errorf("tree entry at byte %d is malformed: %w", from, ErrCorrupt)
			}
			if compareEntries(at.name, at.isTree(), e.entry.Name, isTree) > 0 {
				break
			}
			from = at.end
		}
		to = from
	}
	out := make([]byte, 0, len(raw)-(to-from)+len(e.entry.Name)+28)
	out = append(out, raw[:from]...)
	if e.entry.Mode != 0 {
		out = appendEntry(out, e.entry)
	}
	return append(out, raw[to:]...), nil
}

// mergeEdits applies many edits at once.
func mergeEdits(raw []byte, edits []dirEdit) ([]byte, error) {
	entries, err := parseTree(raw)
	if err != nil {
		return nil, err
	}
	gone := make(map[string]bool, len(edits))
	for _, e := range edits {
		gone[e.entryName()] = true
	}
	entries = slices.DeleteFunc(entries, func(e TreeEntry) bool { return gone[e.Name] })
	for _, e := range edits {
		if e.entry.Mode != 0 {
			entries = append(entries, e.entry)
		}
	}
	sortEntries(entries)
	return encodeTree(entries), nil
}
