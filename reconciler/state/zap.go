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
	if !c.Enabled(e.Level) || aboutSockets(e.Message) {
		return ce
	}
	return ce.AddCore(e, c)
}

// aboutSockets tells warnings about listeners, of which the embedded etcd has none.
func aboutSockets(message string) bool {
	return strings.HasPrefix(message, "Running http and grpc server on single port") || message == "simple token is not cryptographically signed"
}

// Write implements zapcore.Core.
func (c *slogCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	if e.Level > zapcore.WarnLevel {
		c.log.Error(e.Message, attrs(fields)...)
	} else {
		c.log.Warn(e.Message, attrs(fields)...)
	}
	return nil
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
