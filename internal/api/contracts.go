package api

import (
	"encoding/json"
	"net/http"
	"strings"

	"github.com/parley-node/parley/internal/abi"
	"github.com/parley-node/parley/internal/contract"
	"github.com/parley-node/parley/internal/errs"
	"github.com/parley-node/parley/internal/ethereum"
	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/internal/transaction"
	"github.com/parley-node/parley/wire"
)

// contractRoutes are the operations of the contract gateway.
func contractRoutes() []route {
	confirm := spec{confirm: true}
	publish := spec{confirm: true, flags: []string{"publish"}}
	routes := []route{
		{post, "contracts/deploy", "postContractDeploy", "Creates a contract", body(postDeploy), confirm.io(contract.DeployRequest{}, store.Operation{})},
		{post, "contracts/invoke", "postContractInvoke", "Calls a method of a contract by a transaction", body(postInvoke), confirm.io(contract.CallRequest{}, store.Operation{})},
		{post, "contracts/query", "postContractQuery", "Calls a method of a contract without a transaction", body(postQuery), spec{light: true}.io(contract.CallRequest{}, map[string]any{})},

		{post, "contracts/interfaces/generate", "postGenerateContractInterface", "Makes an interface of an ABI", body(postGenerate), spec{light: true}.io(contract.GenerateRequest{}, abi.Interface{})},
		{post, "contracts/interfaces", "postNewContractInterface", "Stores an interface, for all members with publish", body(postInterface), publish.io(abi.Interface{}, abi.Interface{})},
		{get, "contracts/interfaces", "getContractInterfaces", "Lists interfaces", lists(store.Interfaces), filtered(store.Interfaces)},
		{get, "contracts/interfaces/{interfaceId}", "getContractInterface", "Reads an interface", getInterface, spec{out: abi.Interface{}, flags: []string{"fetchchildren"}}},
		{remove, "contracts/interfaces/{interfaceId}", "deleteContractInterface", "Deletes an interface that is not published", deleteInterface, spec{status: http.StatusNoContent}},
		{get, "contracts/interfaces/{name}/{version}", "getContractInterfaceByNameAndVersion", "Reads an interface by name and version", getInterfaceByName, spec{out: abi.Interface{}, flags: []string{"fetchchildren"}}},
		{post, "contracts/interfaces/{name}/{version}/publish", "postContractInterfacePublish", "Makes an interface known to all members", body(postInterfacePublish), confirm.io(publishInterface{}, abi.Interface{})},

		{post, "contracts/listeners", "postNewContractListener", "Listens to events of contracts", body(postListener), spec{}.io(contract.ListenerInput{}, store.Listener{})},
		{post, "contracts/listeners/signature", "postContractListenerSignature", "Tells the signature that a listener would have", body(postListenerSignature), spec{light: true}.io(contract.ListenerInput{}, listenerSignature{})},
		{get, "contracts/listeners", "getContractListeners", "Lists listeners", lists(store.Listeners), filtered(store.Listeners)},
		{get, "contracts/listeners/{nameOrId}", "getContractListenerByNameOrID", "Reads a listener", getListener, spec{out: listenerWithStatus{}, flags: []string{"fetchstatus"}}},
		{remove, "contracts/listeners/{nameOrId}", "deleteContractListener", "Deletes a listener; its events stay", deleteListener, spec{status: http.StatusNoContent}},

		{get, "contracts/signers", "getContractSigners", "Lists the accounts that sign, with what is under way for each", getSigners, spec{out: []transaction.Signer{}}},
		{post, "contracts/signers/{address}/suspend", "postContractSignerSuspend", "Keeps an account from signing anything new", body(postSignerSuspend), spec{status: http.StatusNoContent, in: suspension{}}},
		{post, "contracts/signers/{address}/resume", "postContractSignerResume", "Lets an account sign again", postSignerResume, spec{status: http.StatusNoContent}},
		{post, "operations/{opid}/cancel", "postOpCancel", "Takes the transaction of an operation off the chain, if it is not mined", postCancelTransaction, spec{status: http.StatusAccepted, out: contract.Detail{}}},
		{post, "operations/{opid}/replace", "postOpReplace", "Changes what the transaction of an operation offers to pay", body(postReplaceTransaction), spec{status: http.StatusAccepted}.io(map[string]string{}, contract.Detail{})},

		{post, "apis", "postNewContractAPI", "Makes a contract API of an interface and a location", body(postAPI), publish.io(contract.APIInput{}, store.ContractAPI{})},
		{get, "apis", "getContractAPIs", "Lists contract APIs", getAPIs, filtered(store.ContractAPIs)},
		{get, "apis/{apiName}", "getContractAPIByName", "Reads a contract API", getAPI, spec{out: store.ContractAPI{}}},
		{put, "apis/{apiName}", "putContractAPI", "Changes the interface of a contract API, which is named by id", body(putAPI), confirm.io(contract.APIInput{}, store.ContractAPI{})},
		{remove, "apis/{apiName}", "deleteContractAPI", "Deletes a contract API that is not published", deleteAPI, spec{status: http.StatusNoContent}},
		{get, "apis/{apiName}/interface", "getContractAPIInterface", "Reads the interface of a contract API", getAPIInterface, spec{out: abi.Interface{}}},
		{post, "apis/{apiName}/publish", "postContractAPIPublish", "Makes a contract API known to all members", body(postAPIPublish), confirm.io(publishInterface{}, store.ContractAPI{})},
		{post, "apis/{apiName}/invoke/{methodPath}", "postContractAPIInvoke", "Calls a method by a transaction", body(postAPIInvoke), confirm.io(contract.CallRequest{}, store.Operation{})},
		{post, "apis/{apiName}/query/{methodPath}", "postContractAPIQuery", "Calls a method without a transaction", body(postAPIQuery), spec{light: true}.io(contract.CallRequest{}, map[string]any{})},
		{post, "apis/{apiName}/listeners/{eventPath}", "postContractAPIListeners", "Listens to an event of a contract API", body(postAPIListener), spec{}.io(contract.ListenerInput{}, store.Listener{})},
		{get, "apis/{apiName}/listeners/{eventPath}", "getContractAPIListeners", "Lists the listeners to an event of a contract API", getAPIListeners, filtered(store.Listeners)},
	}
	for i := range routes {
		if needsChain[routes[i].id] {
			routes[i].handle = gateway(routes[i].handle)
		}
	}
	return routes
}

// needsChain are the operations that ask a chain, or send it something. The
// others read and write definitions, which every member of a network has.
var needsChain = map[string]bool{
	"postContractDeploy": true, "postContractInvoke": true, "postContractQuery": true, "postContractAPIInvoke": true, "postContractAPIQuery": true,
	"postNewContractListener": true, "postContractAPIListeners": true,
	"postContractSignerSuspend": true, "postContractSignerResume": true, "postOpCancel": true, "postOpReplace": true,
}

// gateway refuses calls in a namespace that has no chain for contracts.
func gateway(h handler) handler {
	return func(c *call) (any, error) {
		if c.Contracts.Chain == nil {
			return nil, errs.BadRequest("FF10414", "This namespace has no contract gateway; configure a chain for it")
		}
		return h(c)
	}
}

// operation answers with an operation, and with ?confirm waits until it has
// ended.
func (c *call) operation(submit func() (*store.Operation, error)) (any, error) {
	if !c.flag("confirm") {
		return submit()
	}
	from, err := c.Log.Last(c.ctx())
	if err != nil {
		return nil, err
	}
	op, err := submit()
	if err != nil {
		return nil, err
	}
	_, err = c.Log.AwaitAbout(c.ctx(), from, op.ID, func(e *store.Event) bool {
		over, _ := contract.Ended(e.Type)
		return over && e.Reference != nil && *e.Reference == op.ID
	})
	if err != nil {
		return nil, err
	}
	done, err := store.Get(c.ctx(), c.DB, store.Operations, c.Namespace, op.ID.String())
	if err != nil {
		return nil, err
	}
	if done.Status == store.OpFailed {
		return nil, errs.New("FF10111", http.StatusInternalServerError, "%s", strings.TrimPrefix(done.Error, "FF10111: "))
	}
	return done, nil
}

func postDeploy(c *call, in contract.DeployRequest) (any, error) {
	return c.operation(func() (*store.Operation, error) { return c.Contracts.Deploy(c.ctx(), in) })
}

func postInvoke(c *call, in contract.CallRequest) (any, error) {
	return c.operation(func() (*store.Operation, error) { return c.Contracts.Invoke(c.ctx(), in) })
}

func postQuery(c *call, in contract.CallRequest) (any, error) {
	return c.Contracts.Query(c.ctx(), in)
}

func postGenerate(c *call, in contract.GenerateRequest) (any, error) {
	return c.Contracts.Generate(in)
}

// defined answers with a definition; with ?confirm of a published one it waits
// for the verdict on its message, and reads it again.
func defined[T any](c *call, published bool, make func() (T, *wire.UUID, error), again func(T) (any, error)) (any, error) {
	from, err := c.Log.Last(c.ctx())
	if err != nil {
		return nil, err
	}
	made, message, err := make()
	if err != nil || !published || !c.flag("confirm") {
		return made, err
	}
	if err := c.verdict(from, *message); err != nil {
		return nil, err
	}
	return again(made)
}

func postInterface(c *call, in abi.Interface) (any, error) {
	return defined(c, c.flag("publish"), func() (*abi.Interface, *wire.UUID, error) {
		ffi, err := c.Contracts.CreateInterface(c.ctx(), &in, c.flag("publish"))
		if err != nil {
			return nil, nil, err
		}
		return ffi, ffi.Message, nil
	}, c.wholeInterface)
}

func (c *call) wholeInterface(ffi *abi.Interface) (any, error) {
	return c.Contracts.Interface(c.ctx(), store.InterfaceRef{ID: ffi.ID})
}

// publishInterface says under which name the network is to know a definition.
type publishInterface struct {
	NetworkName string `json:"networkName,omitempty"`
}

func postInterfacePublish(c *call, in publishInterface) (any, error) {
	return defined(c, true, func() (*abi.Interface, *wire.UUID, error) {
		ffi, err := c.Contracts.PublishInterface(c.ctx(), c.path("name"), c.path("version"), in.NetworkName)
		if err != nil {
			return nil, nil, err
		}
		return ffi, ffi.Message, nil
	}, c.wholeInterface)
}

// theInterface answers with an interface, and with ?fetchchildren with all of it.
func (c *call) theInterface(ref store.InterfaceRef) (any, error) {
	row, err := c.Contracts.Interface(c.ctx(), ref)
	if err != nil {
		return nil, err
	}
	if !c.flag("fetchchildren") {
		row.Methods, row.Events, row.Errors = nil, nil, nil
	}
	return row, nil
}

func getInterface(c *call) (any, error) {
	id, err := c.uuid("interfaceId")
	if err != nil {
		return nil, err
	}
	return c.theInterface(store.InterfaceRef{ID: &id})
}

func getInterfaceByName(c *call) (any, error) {
	return c.theInterface(store.InterfaceRef{Name: c.path("name"), Version: c.path("version")})
}

func deleteInterface(c *call) (any, error) {
	id, err := c.uuid("interfaceId")
	if err != nil {
		return nil, err
	}
	return nil, c.Contracts.DeleteInterface(c.ctx(), id)
}

func postListener(c *call, in contract.ListenerInput) (any, error) {
	return c.Contracts.CreateListener(c.ctx(), in)
}

// listenerSignature is the answer to who asks for it.
type listenerSignature struct {
	Signature string `json:"signature"`
}

func postListenerSignature(c *call, in contract.ListenerInput) (any, error) {
	signature, err := c.Contracts.ListenerSignature(c.ctx(), in)
	return listenerSignature{signature}, err
}

// listenerWithStatus is a listener with how far it has come.
type listenerWithStatus struct {
	store.Listener
	Status any `json:"status,omitempty"` // contract.ListenerStatus, or {"error"}
}

func getListener(c *call) (any, error) {
	l, err := c.Contracts.Listener(c.ctx(), c.path("nameOrId"))
	if err != nil || !c.flag("fetchstatus") || c.Contracts.Chain == nil {
		return l, err
	}
	status, err := c.Contracts.ListenerStatus(c.ctx(), l)
	if err != nil {
		return listenerWithStatus{*l, map[string]string{"error": errs.Public(err)}}, nil
	}
	return listenerWithStatus{*l, status}, nil
}

func deleteListener(c *call) (any, error) {
	return nil, c.Contracts.DeleteListener(c.ctx(), c.path("nameOrId"))
}

func getSigners(c *call) (any, error) {
	if c.Contracts.Chain == nil {
		return []transaction.Signer{}, nil
	}
	return c.Contracts.Transactions.Signers(c.ctx())
}

// suspension says why an account is suspended.
type suspension struct {
	Reason string `json:"reason"`
}

func postSignerSuspend(c *call, in suspension) (any, error) {
	account, err := c.Contracts.Resolve(c.ctx(), c.path("address"))
	if err != nil {
		return nil, err
	}
	return nil, c.Contracts.Transactions.Suspend(c.ctx(), account, in.Reason)
}

func postSignerResume(c *call) (any, error) {
	account, err := c.Contracts.Resolve(c.ctx(), c.path("address"))
	if err != nil {
		return nil, err
	}
	return nil, c.Contracts.Transactions.Resume(c.ctx(), account)
}

func postCancelTransaction(c *call) (any, error) {
	id, err := c.uuid("opid")
	if err != nil {
		return nil, err
	}
	if err := c.Contracts.Transactions.Cancel(c.ctx(), id); err != nil {
		return nil, err
	}
	return c.Contracts.Detail(c.ctx(), id)
}

func postReplaceTransaction(c *call, in json.RawMessage) (any, error) {
	id, err := c.uuid("opid")
	if err != nil {
		return nil, err
	}
	var offer ethereum.Offer
	if err := json.Unmarshal(in, &offer); err != nil {
		return nil, errs.BadRequest("FF10320", "The offer is not usable: %v", err)
	}
	if err := c.Contracts.Transactions.Replace(c.ctx(), id, offer); err != nil {
		return nil, err
	}
	return c.Contracts.Detail(c.ctx(), id)
}

// located gives a contract API its URLs, under the address that the client used.
func (c *call) located(a *store.ContractAPI) *store.ContractAPI {
	at := c.publicURL(c.r) + base + "namespaces/" + c.Namespace + "/apis/" + a.Name
	a.URLs = store.ContractURLs{API: at, OpenAPI: at + "/api/swagger.json", UI: at + "/api"}
	return a
}

func postAPI(c *call, in contract.APIInput) (any, error) {
	return defined(c, c.flag("publish"), func() (*store.ContractAPI, *wire.UUID, error) {
		a, err := c.Contracts.CreateAPI(c.ctx(), in, c.flag("publish"))
		if err != nil {
			return nil, nil, err
		}
		return c.located(a), a.Message, nil
	}, c.sameAPI)
}

func (c *call) sameAPI(a *store.ContractAPI) (any, error) {
	again, err := c.Contracts.API(c.ctx(), a.Name)
	if err != nil {
		return nil, err
	}
	return c.located(again), nil
}

func postAPIPublish(c *call, in publishInterface) (any, error) {
	return defined(c, true, func() (*store.ContractAPI, *wire.UUID, error) {
		a, err := c.Contracts.PublishAPI(c.ctx(), c.path("apiName"), in.NetworkName)
		if err != nil {
			return nil, nil, err
		}
		return c.located(a), a.Message, nil
	}, c.sameAPI)
}

func putAPI(c *call, in contract.APIInput) (any, error) {
	id, err := c.uuid("apiName") // by id, unlike the other operations
	if err != nil {
		return nil, err
	}
	a, err := c.Contracts.UpdateAPI(c.ctx(), id, in)
	if err != nil {
		return nil, err
	}
	return c.located(a), nil
}

func getAPIs(c *call) (any, error) {
	page, err := list(c, store.ContractAPIs)
	for i := range page.items {
		c.located(&page.items[i])
	}
	return page, err
}

func getAPI(c *call) (any, error) {
	a, err := c.Contracts.API(c.ctx(), c.path("apiName"))
	if err != nil {
		return nil, err
	}
	return c.located(a), nil
}

func deleteAPI(c *call) (any, error) {
	return nil, c.Contracts.DeleteAPI(c.ctx(), c.path("apiName"))
}

func getAPIInterface(c *call) (any, error) {
	a, err := c.Contracts.API(c.ctx(), c.path("apiName"))
	if err != nil {
		return nil, err
	}
	return c.Contracts.Interface(c.ctx(), a.Interface)
}

// of completes a call request with what its API says. A location of the request
// counts only if the API has none.
func (c *call) of(in contract.CallRequest) (contract.CallRequest, error) {
	a, err := c.Contracts.API(c.ctx(), c.path("apiName"))
	if err != nil {
		return in, err
	}
	in.Interface, in.Method, in.MethodPath = a.Interface.ID, nil, c.path("methodPath")
	if len(a.Location) > 0 {
		in.Location = a.Location
	}
	return in, nil
}

func postAPIInvoke(c *call, in contract.CallRequest) (any, error) {
	in, err := c.of(in)
	if err != nil {
		return nil, err
	}
	return postInvoke(c, in)
}

func postAPIQuery(c *call, in contract.CallRequest) (any, error) {
	in, err := c.of(in)
	if err != nil {
		return nil, err
	}
	return postQuery(c, in)
}

func postAPIListener(c *call, in contract.ListenerInput) (any, error) {
	a, err := c.Contracts.API(c.ctx(), c.path("apiName"))
	if err != nil {
		return nil, err
	}
	in.Interface, in.Event, in.EventPath, in.Filters = &a.Interface, nil, c.path("eventPath"), nil
	if len(a.Location) > 0 {
		in.Location = a.Location
	}
	return c.Contracts.CreateListener(c.ctx(), in)
}

// getAPIListeners lists the listeners of the API's interface to one event.
func getAPIListeners(c *call) (any, error) {
	a, err := c.Contracts.API(c.ctx(), c.path("apiName"))
	if err != nil {
		return nil, err
	}
	signature, err := c.Contracts.EventSignature(c.ctx(), *a.Interface.ID, c.path("eventPath"))
	if err != nil {
		return nil, err
	}
	q, err := c.parse(&store.Listeners.Collection)
	if err != nil {
		return nil, err
	}
	if err := q.Where(&store.Listeners.Collection, "interface", a.Interface.ID.String()); err != nil {
		return nil, err
	}
	if err := q.Contains(&store.Listeners.Collection, "signature", signature); err != nil {
		return nil, err
	}
	return listQuery(c, store.Listeners, q)
}

// contractDocument describes a contract API as OpenAPI.
func (s *server) contractDocument(r *http.Request) (object, string, error) {
	if ns := r.PathValue("ns"); ns != "" && s.localName(ns) != s.Namespace {
		return nil, "", noNamespace(ns)
	}
	a, err := s.Contracts.API(r.Context(), r.PathValue("apiName"))
	if err != nil {
		return nil, "", err
	}
	doc, err := s.Contracts.OpenAPI(r.Context(), a)
	return doc, base + "namespaces/" + s.Namespace + "/apis/" + a.Name, err
}
