// SPDX-License-Identifier: Apache-2.0

// Command plumbline is the daemon and its command line in one static binary: `plumbline serve` runs the daemon, the
// other verbs talk to one, and `plumbline demo` plays the whole story against a daemon of its own.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// version is set by the linker.
var version = "devel"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	os.Exit(run(ctx, os.Args[1:], processShell()))
}
