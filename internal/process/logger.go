// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package process

import (
	"errors"
	"io"

	"github.com/go-logr/logr"
	"github.com/go-logr/zapr"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// Level is a logr level: 0 for operation, 1 for debugging. Its flag accepts info, debug, and the number.
type Level int

// The levels.
const (
	Info  Level = 0
	Debug Level = 1
)

// String returns the name of the level.
func (l *Level) String() string {
	if l != nil && *l == Debug {
		return "debug"
	}
	return "info"
}

// Set implements flag.Value.
func (l *Level) Set(s string) error {
	switch s {
	case "info", "0":
		*l = Info
	case "debug", "1":
		*l = Debug
	default:
		return errors.New("must be info or debug")
	}
	return nil
}

// NewLogger returns a logger that writes one JSON object a line to w, with times in RFC 3339. It does not
// sample: every line is written.
func NewLogger(w io.Writer, level Level) logr.Logger {
	encoding := zap.NewProductionEncoderConfig()
	encoding.EncodeTime = zapcore.RFC3339NanoTimeEncoder
	core := zapcore.NewCore(
		zapcore.NewJSONEncoder(encoding),
		zapcore.Lock(zapcore.AddSync(w)),
		zapcore.Level(-int(level)), //nolint:gosec // 0 or 1; zapr maps logr's V(n) to zap's level -n
	)
	return zapr.NewLogger(zap.New(core))
}
