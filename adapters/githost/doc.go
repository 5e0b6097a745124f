// SPDX-License-Identifier: Apache-2.0

// Package githost drives git hosts: repositories, branches, authored commits and pull requests. A file each host.
//
// Local is the host inside Plumbline: bare repositories below one directory, each a gitstore, with the settings
// that git has no place for in plumbline/host.json of the repository. People may clone and push through Door, run
// git in the directory, and edit host.json: the driver reads it all anew each time it looks.
package githost
