// SPDX-License-Identifier: Apache-2.0

package gitstore

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/connectsoft/plumbline/desired"
)

// newConfig is the configuration of a repository that we create. Other programs that write into it keep to it:
// everything is synced, nothing goes backwards, nothing malformed comes in.
const newConfig = `[core]
	repositoryformatversion = 0
	filemode = true
	bare = true
	fsync = all
	logAllRefUpdates = false
[receive]
	denyNonFastForwards = true
	denyDeletes = true
	fsckObjects = true
[transfer]
	fsckObjects = true
[uploadpack]
	allowFilter = true
[gc]
	pruneExpire = 2.weeks.ago
`

// create makes the repository durable before HEAD exists, so that a crash leaves either nothing that counts as a
// repository or a whole one.
func (s *Store) create(branch string) error {
	if branch == "" {
		branch = "main"
	}
	if err := CheckRefName("refs/heads/" + branch); err != nil {
		return err
	}
	if err := s.emptyEnough(); err != nil {
		return err
	}
	dirs := []string{
		"", "plumbline", "plumbline/locks", "plumbline/incoming", "objects", "objects/pack", "objects/info",
		"refs", "refs/heads", "refs/tags",
	}
	if err := os.MkdirAll(filepath.Dir(s.dir), 0o777); err != nil {
		return err
	}
	for _, d := range dirs {
		if err := s.mkdir(s.path(d)); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	if err := s.createFile("config", newConfig); err != nil {
		return err
	}
	for _, d := range dirs[1:] {
		if err := s.syncDir(s.path(d)); err != nil {
			return err
		}
	}
	if err := s.syncDir(s.dir); err != nil {
		return err
	}
	if err := s.createFile("HEAD", "ref: refs/heads/"+branch+"\n"); err != nil {
		return err
	}
	if err := s.syncDir(s.dir); err != nil {
		return err
	}
	return s.syncDir(filepath.Dir(s.dir))
}

// emptyEnough refuses to make a repository among somebody's files.
func (s *Store) emptyEnough() error {
	entries, err := os.ReadDir(s.dir)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(entries) == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	if info, err := os.Lstat(s.path("plumbline")); err == nil && info.IsDir() {
		return nil // our own unfinished creation
	}
	return desired.Errorf("create repository", desired.Ref{}, desired.Conflict,
		"%s is neither empty nor a git repository; name another directory", s.dir)
}

// checkFormat refuses repositories that this package cannot read rightly.
func (s *Store) checkFormat() error {
	for _, d := range []string{"objects", "refs"} {
		if info, err := os.Stat(s.path(d)); err != nil || !info.IsDir() {
			return desired.Errorf("open repository", desired.Ref{}, desired.Invalid,
				"%s is not a bare git repository: %s is missing", s.dir, d)
		}
	}
	for file, why := range map[string]string{
		"objects/info/alternates": "borrows objects from another repository: git repack -a -d and remove the file",
		"shallow":                 "is a shallow clone: git fetch --unshallow",
	} {
		if info, err := os.Stat(s.path(file)); err == nil && info.Size() > 0 {
			return desired.Errorf("open repository", desired.Ref{}, desired.Invalid, "%s %s", s.dir, why)
		}
	}
	config, err := readConfig(s.path("config"))
	if err != nil {
		return err
	}
	refuse := func(what string) error {
		return desired.Errorf("open repository", desired.Ref{}, desired.Invalid,
			"%s %s; clone it into a plain SHA-1 repository and open that", s.dir, what)
	}
	if f := config["extensions.objectformat"]; f != "" && !strings.EqualFold(f, "sha1") {
		return refuse("uses the object format " + f + ", only sha1 is supported")
	}
	if f := config["extensions.refstorage"]; f != "" && !strings.EqualFold(f, "files") {
		return refuse("uses the ref storage " + f + ", only files is supported")
	}
	if f := config["extensions.partialclone"]; f != "" {
		return refuse("is a partial clone")
	}
	if v := config["core.repositoryformatversion"]; v != "" && v != "0" && v != "1" {
		return refuse("has the unknown format version " + v)
	}
	return nil
}

// readConfig reads the keys of plain sections of a git config file, lower case. It is enough for the format keys.
func readConfig(path string) (map[string]string, error) {
	out := make(map[string]string)
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return out, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	section := ""
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if strings.HasPrefix(line, "[") {
			name, rest, _ := strings.Cut(line[1:], "]")
			section, line = strings.ToLower(strings.TrimSpace(name)), strings.TrimSpace(rest)
		}
		if line == "" || line[0] == '#' || line[0] == ';' {
			continue
		}
		key, value, _ := strings.Cut(line, "=")
		value, _, _ = strings.Cut(value, "#")
		out[section+"."+strings.ToLower(strings.TrimSpace(key))] = strings.Trim(strings.TrimSpace(value), `"`)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read config: %w", err)
	}
	return out, nil
}

// keepNote is what our .keep files hold; they are all links to keepFile. They protect a pack from the repacking of
// other programs until its ref has moved.
const (
	keepNote = "plumbline: the ref moves next\n"
	keepFile = "plumbline/keep"
)

// Our temporary files in objects/pack. They end in neither .pack nor .idx, nor do they begin with tmp_: git would
// open the former and prune the latter while they are being written.
const (
	tempPrefix = "plumbline-"
	tempSuffix = ".tmp"
)

// cleanUp removes what a crash left behind. Only names and contents that nobody else writes are touched.
func (s *Store) cleanUp() error {
	for _, pattern := range []string{"plumbline/new-*", "objects/pack/" + tempPrefix + "*" + tempSuffix} {
		if err := s.removeStale(pattern, nil); err != nil {
			return err
		}
	}
	if err := s.removeKeeps(); err != nil {
		return err
	}
	incoming, err := os.ReadDir(s.path("plumbline/incoming"))
	if err != nil {
		return err
	}
	for _, e := range incoming {
		if err := os.RemoveAll(filepath.Join(s.path("plumbline/incoming"), e.Name())); err != nil {
			return err
		}
	}
	if err := s.finishSweep(); err != nil {
		return err
	}
	return s.breakOwnLocks()
}

// removeKeeps removes our .keep files, and packs beside them that were renamed into place before the crash while
// their indexes were not.
func (s *Store) removeKeeps() error {
	ours := func(keep string) bool {
		note, err := os.ReadFile(keep)
		return err == nil && string(note) == keepNote
	}
	err := s.removeStale("objects/pack/pack-*.pack", func(pack string) bool {
		base := strings.TrimSuffix(pack, ".pack")
		_, err := os.Lstat(base + ".idx")
		return errors.Is(err, fs.ErrNotExist) && ours(base+".keep")
	})
	if err != nil {
		return err
	}
	return s.removeStale("objects/pack/*.keep", ours)
}

// removeStale removes files that match a pattern and, when given, a condition that only our own files meet.
func (s *Store) removeStale(pattern string, ours func(file string) bool) error {
	dir, name := splitLast(pattern)
	entries, err := os.ReadDir(s.path(dir))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if ok, err := path.Match(name, e.Name()); err != nil || !ok {
			continue
		}
		file := filepath.Join(s.path(dir), e.Name())
		if ours != nil && !ours(file) {
			continue
		}
		if err := s.remove(file); err != nil {
			return err
		}
	}
	return nil
}
