package bundled

import (
	"context"
	"log/slog"

	cmtlog "github.com/cometbft/cometbft/libs/log"
)

// quiet passes warnings and errors on and keeps the two engines' running
// commentary for the debug level: at their info level they write several lines
// per block.
type quiet struct{ slog.Handler }

func (q quiet) Enabled(ctx context.Context, level slog.Level) bool {
	return q.Handler.Enabled(ctx, demote(level))
}

func (q quiet) Handle(ctx context.Context, r slog.Record) error {
	r.Level = demote(r.Level)
	return q.Handler.Handle(ctx, r)
}

func (q quiet) WithAttrs(attrs []slog.Attr) slog.Handler { return quiet{q.Handler.WithAttrs(attrs)} }
func (q quiet) WithGroup(name string) slog.Handler       { return quiet{q.Handler.WithGroup(name)} }

func demote(level slog.Level) slog.Level {
	if level < slog.LevelWarn {
		return level - 4 // info becomes debug
	}
	return level
}

// cometLog lets CometBFT write to a slog.Logger.
type cometLog struct{ *slog.Logger }

func (l cometLog) With(keyvals ...any) cmtlog.Logger { return cometLog{l.Logger.With(keyvals...)} }
