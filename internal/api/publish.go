package api

import (
	"context"
	"net/http"

	"github.com/parley-node/parley/internal/errs"
	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/wire"
)

// publishInput is the body of a publication.
type publishInput struct {
	IdempotencyKey string `json:"idempotencyKey,omitempty"`
}

func postPublishValue(c *call, in publishInput) (any, error) {
	return c.publish(c.Messages.PublishValue, in)
}

func postPublishBlob(c *call, in publishInput) (any, error) {
	return c.publish(c.Messages.PublishBlob, in)
}

// publish makes a part of the data item that the path names public.
func (c *call) publish(part func(ctx context.Context, id store.UUID, idempotencyKey string) (*store.Data, error), in publishInput) (any, error) {
	id, err := c.uuid("dataid")
	if err != nil {
		return nil, err
	}
	return part(c.ctx(), id, in.IdempotencyKey)
}

// getPublished streams what some member of the network has published.
func getPublished(c *call) (any, error) {
	hash, err := wire.ParseContentID(c.path("cid"))
	if err != nil {
		return nil, errs.New(errs.CodeBadHash, http.StatusBadRequest, "The path names %q: give the reference that a data item shows in public or blob.public", shorten(c.path("cid")))
	}
	r, size, err := c.Messages.OpenPublished(c.ctx(), hash)
	if err != nil {
		return nil, err
	}
	return download{r, &store.BlobRef{Hash: store.Hex(hash.String()), Size: size}}, nil
}
