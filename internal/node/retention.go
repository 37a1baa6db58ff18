package node

import (
	"cmp"
	"fmt"

	"github.com/parley-node/parley/internal/message"
)

// RetentionConfig is how long data is kept, and what becomes of other members'
// requests to erase theirs.
type RetentionConfig struct {
	Requests string                `yaml:"requests,omitempty"` // ask (an operator decides), accept or refuse; ask
	Policies []message.PolicyInput `yaml:"policies,omitempty"` // besides those made through the API
}

func (r *RetentionConfig) check(bad func(field, format string, args ...any)) {
	switch r.Requests {
	case "", message.RequestsAsk, message.RequestsAccept, message.RequestsRefuse:
	default:
		bad("retention.requests", "%q is not one of ask, accept, refuse", r.Requests)
	}
	for i, p := range r.Policies {
		if err := message.CheckPolicy(p); err != nil {
			bad(fmt.Sprintf("retention.policies[%d]", i), "%v", err)
		}
	}
}

func (r *RetentionConfig) retention() message.Retention {
	return message.Retention{Requests: cmp.Or(r.Requests, message.RequestsAsk), Policies: r.Policies}
}
