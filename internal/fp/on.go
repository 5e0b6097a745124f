// SPDX-License-Identifier: Apache-2.0

//go:build failpoint

package fp

import (
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
)

var (
	target, count = parse(os.Getenv("PLUMBLINE_FP"))
	hits          atomic.Int64
)

// Hit kills the process when name has been hit as often as PLUMBLINE_FP asks for.
func Hit(name string) {
	if name != target || hits.Add(1) != count {
		return
	}
	p, err := os.FindProcess(os.Getpid())
	if err == nil {
		_ = p.Signal(syscall.SIGKILL)
	}
	select {} // the signal is on its way: run nothing more
}

func parse(s string) (string, int64) {
	name, n, ok := strings.Cut(s, ":")
	if !ok {
		return name, 1
	}
	v, err := strconv.ParseInt(n, 10, 64)
	if err != nil || v < 1 {
		return "", 0
	}
	return name, v
}
