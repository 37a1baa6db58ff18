package api_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// shapes holds results against the documented types, and remembers which
// optional fields it has seen.
type shapes struct {
	sf   *surface
	seen map[string]*presence // by component and field
}

type presence struct{ set, unset bool }

// beyond are fields that results have and the documented types lack.
var beyond = map[string]map[string]string{
	"NamespaceStatus": {"version": "string"},
	"Subscription":    {"status": "any"}, // with ?fetchstatus
	// With ?fetchreferences.
	"Event": {
		"message": "@Message", "transaction": "@Transaction", "blockchainEvent": "@BlockchainEvent", "datatype": "@Datatype",
		"identity": "@Identity", "operation": "@Operation",
	},
	"SubscriptionOptions": {"mine": "any"},                 // what nobody knows is kept
	"Identity":            {"verifiers": "[]@VerifierRef"}, // with ?fetchverifiers
}

var (
	uuidText = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
	timeText = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z$`)
	hashText = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

// check holds a value against a type: "string", "string:uuid", "string:byte" (32
// bytes in hexadecimal), "string:date-time", "integer…", "number…", "boolean",
// "enum:name", "any", "@component", "[]" and a type; with "?" at the end it may
// be null.
func (s *shapes) check(t *testing.T, where string, typ, v any) {
	t.Helper()
	name, plain := typ.(string)
	if !plain { // an object that the surface says nothing more of
		return
	}
	name, nullable := strings.CutSuffix(name, "?")
	if v == nil {
		if !nullable && name != "any" {
			t.Errorf("%s: null, want %s", where, name)
		}
		return
	}
	fits := func(ok bool) {
		t.Helper()
		if !ok {
			t.Errorf("%s: %v is no %s", where, v, name)
		}
	}
	text, isText := v.(string)
	kind, arg, _ := strings.Cut(name, ":")
	switch {
	case strings.HasPrefix(name, "[]"):
		list, isList := v.([]any)
		fits(isList)
		for i, e := range list {
			s.check(t, fmt.Sprintf("%s[%d]", where, i), name[2:], e)
		}
	case strings.HasPrefix(name, "@"):
		o, isObject := v.(object)
		fits(isObject)
		if isObject {
			s.component(t, where, name[1:], o)
		}
	case kind == "enum":
		fits(isText && slices.Contains(s.sf.Enums[arg], text))
	case name == "string:uuid":
		fits(uuidText.MatchString(text))
	case name == "string:date-time":
		fits(timeText.MatchString(text))
	case name == "string:byte":
		fits(hashText.MatchString(text))
	case kind == "string":
		fits(isText)
	case kind == "integer":
		n, isNumber := v.(json.Number)
		fits(isNumber && !strings.ContainsAny(n.String(), ".eE"))
	case kind == "number":
		_, isNumber := v.(json.Number)
		fits(isNumber)
	case kind == "boolean":
		_, isBool := v.(bool)
		fits(isBool)
	case name != "any":
		t.Fatalf("%s: the surface names the type %q", where, name)
	}
}

// component checks the fields of an object: only documented ones, optional ones
// never empty, all others always there.
func (s *shapes) component(t *testing.T, where, name string, o object) {
	t.Helper()
	c, known := s.sf.Components[name]
	if !known {
		t.Fatalf("%s: the surface names the component %q", where, name)
	}
	for field, v := range o {
		typ, documented := c.Properties[field]
		if !documented {
			extra, allowed := beyond[name][field]
			if !allowed {
				t.Errorf("%s: %s has the field %q, which is not documented", where, name, field)
				continue
			}
			typ = extra
		}
		s.check(t, where+"."+field, typ, v)
	}
	optional, described := s.sf.Optional[name]
	for _, field := range slices.Sorted(maps.Keys(c.Properties)) {
		v, there := o[field]
		if !slices.Contains(optional, field) {
			if described && !there {
				t.Errorf("%s: %s lacks the field %q", where, name, field)
			}
			continue
		}
		p := s.seen[name+"."+field]
		if p == nil {
			p = &presence{}
			s.seen[name+"."+field] = p
		}
		if there {
			p.set = true
			list, isList := v.([]any)
			if v == nil || v == "" || v == false || v == json.Number("0") || isList && len(list) == 0 {
				t.Errorf("%s: %s has the empty field %q, which is left out then", where, name, field)
			}
		} else {
			p.unset = true
		}
	}
}

// complete tells which optional fields were not seen both ways, apart from those
// that are excused.
func (s *shapes) complete(t *testing.T) {
	t.Helper()
	always, never := excused(alwaysSet), excused(neverSet)
	for _, field := range slices.Sorted(maps.Keys(s.seen)) {
		p := s.seen[field]
		switch {
		case always[field] && p.unset:
			t.Errorf("%s is said to be always set, and was seen unset", field)
		case never[field] && p.set:
			t.Errorf("%s is said to be never set, and was seen set", field)
		case !p.set && !never[field]:
			t.Errorf("%s was never seen set", field)
		case !p.unset && !always[field]:
			t.Errorf("%s was never seen unset", field)
		}
	}
	for _, list := range []map[string]bool{always, never} {
		for field := range list {
			if s.seen[field] == nil {
				t.Errorf("%s is excused, and no result has its type", field)
			}
		}
	}
}

// excused reads a list whose keys are a component and some of its fields.
func excused(list map[string]string) map[string]bool {
	fields := map[string]bool{}
	for key := range list {
		words := strings.Fields(key)
		for _, field := range words[1:] {
			fields[words[0]+"."+field] = true
		}
	}
	return fields
}

// alwaysSet are optional fields that every result of a node has, and why: each
// key is a component and its fields.
var alwaysSet = map[string]string{
	"BatchPersisted author key node":                                            "the batch's header proves all of them",
	"BlockchainEvent id info name namespace output protocolId source timestamp": "a record of the ledger has them all",
	"BlockchainTransactionRef blockchainId id type":                             "only pins of known batches are shown",
	"Data created hash id namespace":                                            "stored with each item",
	"DataRef hash id":                                                           "both name the item",
	"DataRefOrValue hash id":                                                    "in results every item is stored",
	"Datatype created hash id message name namespace value version":             "its definition has them all",
	"DatatypeRef name version":                                                  "both name the datatype",
	"Event topic tx":                                                            "so far nothing happens outside of a transaction",
	"Group created hash localNamespace namespace":                               "stored with each group",
	"Identity created messages name updated":                                    "stored with each identity",
	"IdentityWithVerifiers created messages name updated":                       "stored with each identity",
	"MemberInput identity node":                                                 "members are organisations with a node",
	"Message hash localNamespace state":                                         "stored with each message",
	"MessageInOut hash localNamespace state":                                    "stored with each message",
	"MessageHeader author created datahash id key namespace topics txtype":      "stored with each message",
	"MultipartyContract firstEvent location":                                    "a node is configured with its contract",
	"MultipartyContractWithStatus firstEvent location":                          "a node is configured with its contract",
	"MultipartyContractInfo subscription version":                               "a node is configured with its contract",
	"NamespaceMultipartyStatus contracts":                                       "the namespace is one of a network",
	"NamespaceStatus node org":                                                  "the namespace is one of a network",
	"NamespaceStatusMultiparty contract":                                        "the namespace is one of a network",
	"Operation created input updated":                                           "stored with each operation",
	"OperationWithDetail created input updated":                                 "stored with each operation",
	"Pin batchHash created hash masked signer":                                  "on the ledger with each pin; all are masked",
	"Subscription id":                                                           "stored with each subscription",
	"SubscriptionFilter blockchainevent message transaction":                    "shown empty if nothing is filtered",
	"Transaction id namespace":                                                  "stored with each transaction",
	"TransactionRef id":                                                         "a batch has its transaction from the start",
	"Verifier created identity namespace":                                       "stored with each verifier",
}

// neverSet are optional fields that nothing sets here, and why.
var neverSet = map[string]string{
	"BlockchainEvent listener":                                 "only events of applications' own contracts have one",
	"DataRefOrValue blob":                                      "left out by the reference as well",
	"FlushStatus lastFlushError lastFlushErrorTime":            "a batch fails to be sealed only if the database or the keys fail",
	"Group message":                                            "a group begins with its first batch; no message founds it",
	"Message pins":                                             "the pins of a message are those of its batch: GET pins?batch=",
	"MessageInOut group pins":                                  "group is for requests; pins as above",
	"MessageHeader txparent":                                   "only messages that go with a token or contract call have one",
	"MultipartyContractInfo finalEvent":                        "no contract has a successor here",
	"MultipartyContracts terminated":                           "no contract has a successor here",
	"MultipartyContractsWithActiveStatus terminated":           "no contract has a successor here",
	"NamespaceWithInitStatus initializationError initializing": "the namespace is up",
	"Subscription ephemeral":                                   "ephemeral ones are not stored; see GET websockets",
	"VerificationMethod mspIdentityString":                     "of Fabric only",
}
