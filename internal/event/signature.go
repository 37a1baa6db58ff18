package event

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/parley-node/parley/internal/errs"
)

// The headers of a signed webhook (Standard Webhooks 1.0, "Webhook headers").
const (
	headerWebhookID        = "Webhook-Id"
	headerWebhookTime      = "Webhook-Timestamp"
	headerWebhookSignature = "Webhook-Signature"
)

const secretPrefix = "whsec_"

// parseSecret reads a secret: whsec_ and 24 to 64 bytes in base64. The error does
// not show it.
func parseSecret(text string) ([]byte, error) {
	encoded, ok := strings.CutPrefix(text, secretPrefix)
	key, err := base64.StdEncoding.DecodeString(encoded)
	if !ok || err != nil || len(key) < 24 || len(key) > 64 {
		return nil, errs.BadRequest(errs.CodeBadValue, "options.secret is not of the form whsec_ and 24 to 64 bytes in base64; make one with: echo whsec_$(openssl rand -base64 32)")
	}
	return key, nil
}

// sign sets the headers that tell a receiver who sent a body, when, and whether
// it has had it before: id is the same in each attempt.
func sign(h http.Header, key []byte, id string, at time.Time, body []byte) {
	stamp := strconv.FormatInt(at.Unix(), 10)
	h.Set(headerWebhookID, id)
	h.Set(headerWebhookTime, stamp)
	if key == nil {
		return
	}
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(id + "." + stamp + "."))
	mac.Write(body)
	h.Set(headerWebhookSignature, "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
}
