// SPDX-FileCopyrightText: The Countersign Authors
// SPDX-License-Identifier: Apache-2.0

package process

import (
	"fmt"
	"io"

	"github.com/go-logr/logr"
	"github.com/go-logr/zapr"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// Level is a logr level: 0 for what an operator wants to see, 1 for what helps to find a fault.
// As a flag it is written info or debug, or as the number.
type Level int

// The levels in use.
const (
	Info  Level = 0
	Debug Level = 1
)

// String is the level as a flag has it.
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
		return fmt.Errorf("want info or debug")
	}
	return nil
}

// NewLogger makes a logger that writes one JSON object a line to w, with times in RFC 3339. It
// drops no lines however alike they are: some of them are records.
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
