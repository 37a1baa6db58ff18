package contract

import (
	"context"
	"net/http"

	"github.com/parley-node/parley/internal/errs"
)

// Query calls a method without a transaction, and returns its outputs by name.
// Integers are decimal strings.
func (s *Service) Query(ctx context.Context, r CallRequest) (map[string]any, error) {
	p, err := s.prepare(ctx, &r)
	if err != nil {
		return nil, err
	}
	block := p.options.Block
	if block == "" {
		block = "latest"
	}
	data, err := s.Chain.Call(ctx, p.message(), block)
	if err := s.tried(p.what(), err, p.errors); err != nil {
		return nil, err
	}
	result, err := p.method.Result(data)
	if err != nil {
		return nil, errs.New("FF10111", http.StatusInternalServerError, "The call of %s: %v", p.what(), err)
	}
	return result, nil
}
