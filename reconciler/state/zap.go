// SPDX-License-Identifier: Apache-2.0

package state

import (
	"log/slog"
	"maps"
	"slices"
	"strings"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// zapLogger gives etcd a logger that writes its warnings and errors to log (nil = nowhere).
func zapLogger(log *slog.Logger) *zap.Logger {
	if log == nil {
		return zap.NewNop()
	}
	return zap.New(&slogCore{log.With("component", "etcd")})
}

// slogCore is a zap core on a slog logger.
type slogCore struct{ log *slog.Logger }

// Enabled implements zapcore.Core. What etcd calls information is of no use to who runs Plumbline.
func (c *slogCore) Enabled(l zapcore.Level) bool { return l >= zapcore.WarnLevel }

// With implements zapcore.Core.
func (c *slogCore) With(fields []zapcore.Field) zapcore.Core {
	return &slogCore{c.log.With(attrs(fields)...)}
}

// Check implements zapcore.Core.
func (c *slogCore) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return ce.AddCore(e, c)
	}
	return ce
}

// Write implements zapcore.Core.
func (c *slogCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	out := attrs(fields)
	switch {
	case expected(e.Message, fields):
	case e.Level > zapcore.WarnLevel:
		c.log.Error(e.Message, out...)
	default:
		c.log.Warn(e.Message, out...)
	}
	return nil
}

// expected tells what a healthy embedded etcd warns of: listeners, of which it has none, and its storage version, which
// it may look for before the first batch is written and looks for again 5 s later.
func expected(message string, fields []zapcore.Field) bool {
	for _, f := range fields {
		if err, ok := f.Interface.(error); ok && strings.Contains(err.Error(), "missing term information") {
			return true
		}
	}
	return strings.HasPrefix(message, "Running http and grpc server on single port") || message == "simple token is not cryptographically signed"
}

// Sync implements zapcore.Core.
func (c *slogCore) Sync() error { return nil }

func attrs(fields []zapcore.Field) []any {
	enc := zapcore.NewMapObjectEncoder()
	for _, f := range fields {
		f.AddTo(enc)
	}
	out := make([]any, 0, len(enc.Fields))
	for _, k := range slices.Sorted(maps.Keys(enc.Fields)) {
		out = append(out, slog.Any(k, enc.Fields[k]))
	}
	return out
}
