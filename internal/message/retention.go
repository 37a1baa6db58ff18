package message

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/parley-node/parley/internal/errs"
	"github.com/parley-node/parley/internal/identity"
	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/wire"
)

// Retention is what the configuration says about how long data is kept.
type Retention struct {
	Requests string        // RequestsAsk if empty
	Policies []PolicyInput // besides those that the API makes
}

// PolicyInput is a retention policy: data of messages that fit all of its fields
// is erased when their verdict is older than Age.
type PolicyInput struct {
	Topic      string    `json:"topic,omitempty" yaml:"topic,omitempty"`
	Datatype   string    `json:"datatype,omitempty" yaml:"datatype,omitempty"` // name, or name/version
	Group      store.Hex `json:"group,omitempty" yaml:"group,omitempty"`
	Age        string    `json:"age" yaml:"age"`                                   // days such as 90d, or a duration such as 36h
	Recipients bool      `json:"recipients,omitempty" yaml:"recipients,omitempty"` // ask the receivers of our messages to erase them as well
	Author     string    `json:"author,omitempty" yaml:"-"`                        // who sets it; the organisation if empty
}

const (
	retentionPage = 200         // messages that a step looks at
	lookAgain     = time.Hour   // after which policies look at everything again
	minAge        = time.Minute // a typing error must not erase what has just come
	blobPage      = 50          // files that a step removes
	day           = 24 * time.Hour
)

// ParseAge reads the age of a policy.
func ParseAge(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if d, err = time.ParseDuration(days + "h"); err == nil && d > time.Duration(1<<63-1)/24 {
			err = errors.New("too long")
		}
		d *= 24
	}
	if err != nil || d < minAge {
		return 0, errs.BadRequest(errs.CodeBadValue, "field %q holds %q: give days such as 90d, or a duration of at least %s such as 36h", "age", text, minAge)
	}
	return d, nil
}

// Policy is a retention policy as the API shows it.
type Policy struct {
	store.RetentionPolicy
	Age    string `json:"age"`
	Erased int64  `json:"erased"`         // messages that it has erased
	Kept   int64  `json:"kept"`           // messages that it had to keep when it last looked at them
	Why    string `json:"why,omitempty"`  // it had to keep the last of them
	Seen   string `json:"seen,omitempty"` // verdicts up to this time have been looked at
}

// CheckPolicy says what is wrong with a policy.
func CheckPolicy(in PolicyInput) error {
	if _, err := ParseAge(in.Age); err != nil {
		return err
	}
	if in.Topic != "" {
		if err := identity.CheckName("topic", in.Topic); err != nil {
			return err
		}
	}
	if in.Group != "" {
		if _, err := wire.ParseHash(string(in.Group)); err != nil {
			return errs.New(errs.CodeBadHash, 400, "field %q: %v", "group", err)
		}
	}
	if name, version, both := strings.Cut(in.Datatype, "/"); in.Datatype != "" {
		if err := identity.CheckName("datatype", name); err != nil {
			return err
		}
		if both {
			return identity.CheckName("datatype", version)
		}
	}
	return nil
}

func (s *Service) newPolicy(in PolicyInput, source string) (*store.RetentionPolicy, error) {
	if err := CheckPolicy(in); err != nil {
		return nil, err
	}
	age, err := ParseAge(in.Age)
	return &store.RetentionPolicy{
		ID: s.NewID(), Namespace: s.Namespace, Topic: in.Topic, Datatype: in.Datatype, Group: in.Group, Age: int64(age), Recipients: in.Recipients,
		Source: source, Author: s.person(in.Author), Created: s.now(),
	}, err
}

// AddPolicy makes a retention policy; it begins to work at once.
func (s *Service) AddPolicy(ctx context.Context, in PolicyInput) (*Policy, error) {
	p, err := s.newPolicy(in, store.PolicyFromAPI)
	if err != nil {
		return nil, err
	}
	if err := s.DB.Write(ctx, func(tx *store.Tx) error { return tx.InsertRetentionPolicy(p) }); err != nil {
		return nil, err
	}
	s.Wake.Retention.Set()
	return s.policyStatus(p, 0), nil
}

// DeletePolicy ends a policy that the API made. What it has erased stays erased.
func (s *Service) DeletePolicy(ctx context.Context, id wire.UUID) error {
	return s.DB.Write(ctx, func(tx *store.Tx) error {
		p, err := store.GetTx(tx, store.RetentionPolicies, s.Namespace, id.String())
		if err != nil {
			return err
		}
		if p.Source == store.PolicyFromConfig {
			return errs.Conflict(codeNothing, "retention policy %s is one of the configuration: remove it there (retention.policies)", id)
		}
		return tx.DeleteRetentionPolicy(s.Namespace, id)
	})
}

// Policies lists the retention policies with what they did.
func (s *Service) Policies(ctx context.Context) (list []*Policy, err error) {
	list = []*Policy{}
	err = s.DB.Read(ctx, func(tx *store.Tx) error {
		rows, err := tx.RetentionPoliciesOf(s.Namespace)
		if err != nil {
			return err
		}
		for i := range rows {
			erased, err := tx.ErasedByOrigin(rows[i].ID.String())
			if err != nil {
				return err
			}
			list = append(list, s.policyStatus(&rows[i], erased))
		}
		return nil
	})
	return list, err
}

func (s *Service) policyStatus(p *store.RetentionPolicy, erased int64) *Policy {
	out := &Policy{RetentionPolicy: *p, Age: time.Duration(p.Age).String(), Erased: erased}
	if days := time.Duration(p.Age) / day; days > 0 && days*day == time.Duration(p.Age) {
		out.Age = fmt.Sprintf("%dd", days)
	}
	s.keeping.mu.Lock()
	defer s.keeping.mu.Unlock()
	if at := s.keeping.at[p.ID]; at != nil {
		out.Kept, out.Why = at.kept, at.why
		if at.through > 0 {
			out.Seen = at.through.String()
		}
	}
	return out
}

// keepPolicies puts the configured policies in the place of those of an earlier
// start. One that has not changed keeps its id, which what it erased refers to.
func (s *Service) keepPolicies(ctx context.Context) error {
	wanted := map[wire.UUID]*store.RetentionPolicy{}
	for _, in := range s.Retention.Policies {
		p, err := s.newPolicy(in, store.PolicyFromConfig)
		if err != nil {
			return err
		}
		p.ID = uuid.NewSHA1(uuid.Nil, fmt.Appendf(nil, "%s\x00%s\x00%s\x00%s\x00%d\x00%v", s.Namespace, p.Topic, p.Datatype, p.Group, p.Age, p.Recipients))
		wanted[p.ID] = p
	}
	return s.DB.Write(ctx, func(tx *store.Tx) error {
		missing := maps.Clone(wanted)
		rows, err := tx.RetentionPoliciesOf(s.Namespace)
		if err != nil {
			return err
		}
		for _, have := range rows {
			if have.Source != store.PolicyFromConfig {
				continue
			}
			if wanted[have.ID] == nil {
				if err := tx.DeleteRetentionPolicy(s.Namespace, have.ID); err != nil {
					return err
				}
			}
			delete(missing, have.ID)
		}
		for _, id := range slices.SortedFunc(maps.Keys(missing), func(a, b wire.UUID) int { return slices.Compare(a[:], b[:]) }) {
			if err := tx.InsertRetentionPolicy(missing[id]); err != nil {
				return err
			}
		}
		return nil
	})
}

// keeping is what RetentionStep remembers between its steps. All of it may be
// lost: the rows say what is to be done.
type keeping struct {
	erasing sync.Mutex // held by the one erasure that runs

	mu     sync.Mutex
	at     map[wire.UUID]*policyAt
	looked time.Time // when the policies began to look at everything
	dirty  bool      // there was an erasure since the database's log was emptied
}

// policyAt is how far a policy has come.
type policyAt struct {
	through store.Time // verdict of the last message looked at
	seq     int64
	kept    int64
	why     string
}

// again has the policies look at everything again.
func (k *keeping) again() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.at = nil
}

func (k *keeping) scrubLater() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.dirty = true
}

// policy is where a policy goes on.
func (k *keeping) policy(id wire.UUID, now time.Time) policyAt {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.at == nil || now.Sub(k.looked) >= lookAgain {
		k.at, k.looked = map[wire.UUID]*policyAt{}, now
	}
	if k.at[id] == nil {
		k.at[id] = &policyAt{}
	}
	return *k.at[id]
}

func (k *keeping) reached(id wire.UUID, at policyAt) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.at != nil { // else they were told to look at everything again
		k.at[id] = &at
	}
}

// RetentionStep carries out the requests of other members, erases what the
// policies say, and cleans up after erasures: files of blobs, the database's log.
// It does a part, in small transactions, and says whether there is more.
func (s *Service) RetentionStep(ctx context.Context) (more bool, err error) {
	var requests []store.ErasureRequest
	var policies []store.RetentionPolicy
	err = s.DB.Read(ctx, func(tx *store.Tx) (err error) {
		if requests, err = tx.AcceptedErasures(retentionPage); err != nil {
			return err
		}
		policies, err = tx.RetentionPoliciesOf(s.Namespace)
		return err
	})
	if err != nil {
		return false, err
	}
	var failed []error
	for i := range requests {
		failed = append(failed, s.carryOut(ctx, &requests[i]))
	}
	for i := range policies {
		rest, err := s.applyPolicy(ctx, &policies[i])
		more = more || rest
		failed = append(failed, err)
	}
	rest, err := s.removeBlobs(ctx)
	more = more || rest
	failed = append(failed, err, s.scrub(ctx))
	return more, errors.Join(failed...)
}

// applyPolicy looks at the next page of messages that are old enough.
func (s *Service) applyPolicy(ctx context.Context, p *store.RetentionPolicy) (more bool, err error) {
	at := s.keeping.policy(p.ID, s.Now())
	page, fit, err := s.oldMessages(ctx, p, at.through, at.seq)
	if err != nil || len(page) == 0 {
		return false, err
	}
	o := eraseOrder{source: store.ErasedByPolicy, origin: p.ID.String(), author: p.Author, reason: "retention policy " + p.ID.String()}
	for _, group := range byBatch(fit) {
		err := s.erasePart(ctx, o, p, group)
		if err == nil {
			continue
		}
		if errs.Code(err) == "" {
			return false, err
		}
		if len(group) == 1 {
			at.kept, at.why = at.kept+1, err.Error()
			continue
		}
		for i := range group { // one of them must be kept: the others need not be
			if err := s.erasePart(ctx, o, p, group[i:i+1]); err != nil {
				if errs.Code(err) == "" {
					return false, err
				}
				at.kept, at.why = at.kept+1, err.Error()
			}
		}
	}
	last := page[len(page)-1]
	at.through, at.seq = *last.Confirmed, last.Seq
	s.keeping.reached(p.ID, at)
	return len(page) == retentionPage, nil
}

// oldMessage is a message that a policy selects, with its data that is not erased.
type oldMessage struct {
	*store.Message
	data []int64
}

// oldMessages are the next messages whose verdict is older than a policy's age,
// and those of them that it selects.
func (s *Service) oldMessages(ctx context.Context, p *store.RetentionPolicy, after store.Time, seq int64) (page []*store.Message, fit []oldMessage, err error) {
	through := store.At(s.Now().Add(-time.Duration(p.Age)))
	err = s.DB.Read(ctx, func(tx *store.Tx) error {
		if page, err = tx.Decided(s.Namespace, after, seq, through, retentionPage); err != nil {
			return err
		}
		var seqs []int64
		for _, m := range page {
			if (p.Topic == "" || slices.Contains(m.Header.Topics, p.Topic)) && (p.Group == "" || p.Group == m.Header.Group) {
				seqs = append(seqs, m.Seq)
			}
		}
		data, err := tx.DataOfMessages(seqs)
		if err != nil {
			return err
		}
		for _, m := range page {
			if items := data[m.Seq]; len(unerased(items)) > 0 && ofDatatype(items, p.Datatype) {
				fit = append(fit, oldMessage{m, unerased(items)})
			}
		}
		return nil
	})
	return page, fit, err
}

// ofDatatype tells whether any of some items has a datatype, given as name or
// name/version; an empty one is any.
func ofDatatype(items []*store.Data, datatype string) bool {
	name, version, both := strings.Cut(datatype, "/")
	return datatype == "" || slices.ContainsFunc(items, func(d *store.Data) bool {
		return d.Datatype != nil && d.Datatype.Name == name && (!both || d.Datatype.Version == version)
	})
}

// byBatch groups messages by their batch, so that each becomes a remnant once.
func byBatch(messages []oldMessage) (groups [][]oldMessage) {
	place := map[wire.Entry]int{}
	for _, m := range messages {
		if m.Root == nil {
			groups = append(groups, []oldMessage{m})
			continue
		}
		id := wire.Entry{Author: m.Org, Root: *m.Root}
		at, ok := place[id]
		if !ok {
			at = len(groups)
			place[id] = at
			groups = append(groups, nil)
		}
		groups[at] = append(groups[at], m)
	}
	return groups
}

// erasePart erases the data of messages that a policy selects.
func (s *Service) erasePart(ctx context.Context, o eraseOrder, p *store.RetentionPolicy, messages []oldMessage) error {
	var data []int64
	for _, m := range messages {
		o.recipients = p.Recipients && m.Org == s.Self.Org
		for _, seq := range m.data {
			if !slices.Contains(data, seq) {
				data = append(data, seq)
			}
		}
	}
	_, err := s.erase(ctx, o, data)
	return err
}

// Preview is what a policy would do now.
type Preview struct {
	Messages int64 `json:"messages"` // whose data it would erase
	Data     int64 `json:"data"`     // items
	Held     int64 `json:"held"`     // messages that it selects and a legal hold keeps
}

// PreviewPolicy counts what a policy would erase now. It changes nothing.
func (s *Service) PreviewPolicy(ctx context.Context, in PolicyInput) (*Preview, error) {
	p, err := s.newPolicy(in, store.PolicyFromAPI)
	if err != nil {
		return nil, err
	}
	var holds []store.Hold
	err = s.DB.Read(ctx, func(tx *store.Tx) (err error) { holds, err = tx.HoldsInForce(s.Namespace); return err })
	if err != nil {
		return nil, err
	}
	sum := &Preview{}
	var after store.Time
	var seq int64
	for {
		page, fit, err := s.oldMessages(ctx, p, after, seq)
		if err != nil {
			return nil, err
		}
		for _, m := range fit {
			if s.holdOn(holds, m.Message) != nil {
				sum.Held++
				continue
			}
			sum.Messages++
			sum.Data += int64(len(m.data))
		}
		if len(page) < retentionPage {
			return sum, nil
		}
		last := page[len(page)-1]
		after, seq = *last.Confirmed, last.Seq
	}
}

// removeBlobs removes files that no data item refers to any more. It waits while
// a blob is being stored: its row, which may be for one of these, comes after its
// file.
func (s *Service) removeBlobs(ctx context.Context) (more bool, err error) {
	if !s.blobUse.TryLock() {
		return false, nil
	}
	defer s.blobUse.Unlock()
	var gone []store.Hex
	if err := s.DB.Read(ctx, func(tx *store.Tx) (err error) { gone, err = tx.BlobRemovals(blobPage); return err }); err != nil {
		return false, err
	}
	for _, h := range gone {
		hash, err := wire.ParseHash(string(h))
		if err != nil {
			return false, fmt.Errorf("blob to be removed: %w", err)
		}
		if err := s.Blobs.Delete(ctx, hash); err != nil {
			return false, err
		}
		if err := s.DB.Write(ctx, func(tx *store.Tx) error { return tx.BlobRemoved(h) }); err != nil {
			return false, err
		}
	}
	return len(gone) == blobPage, nil
}

// scrub cleans the database's own files once after erasures.
func (s *Service) scrub(ctx context.Context) error {
	s.keeping.mu.Lock()
	dirty := s.keeping.dirty
	s.keeping.dirty = false
	s.keeping.mu.Unlock()
	if !dirty {
		return nil
	}
	err := s.DB.Scrub(ctx)
	if err != nil {
		s.keeping.scrubLater()
	}
	if errors.Is(err, store.ErrBusy) {
		return nil // a reader is at it; the next step tries again
	}
	return err
}
