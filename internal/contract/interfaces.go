package contract

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"github.com/parley-node/parley/internal/abi"
	"github.com/parley-node/parley/internal/errs"
	"github.com/parley-node/parley/internal/identity"
	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/wire"
)

// GenerateRequest asks for an interface of an ABI.
type GenerateRequest struct {
	Name        string `json:"name"`
	Version     string `json:"version"`
	Description string `json:"description"`
	Input       struct {
		ABI json.RawMessage `json:"abi"`
	} `json:"input"`
}

// Generate makes an interface of an ABI. Nothing is stored.
func (s *Service) Generate(r GenerateRequest) (*abi.Interface, error) {
	if empty(r.Input.ABI) {
		return nil, errs.BadRequest("FF10346", "field %q is missing: give the ABI that the Solidity compiler made", "input.abi")
	}
	ffi, err := abi.Generate(r.Input.ABI)
	if err != nil {
		return nil, errs.Wrap(err, "FF10346", http.StatusBadRequest, "field %q is no usable ABI", "input.abi")
	}
	ffi.Namespace, ffi.Name, ffi.Version, ffi.Description = s.Namespace, r.Name, r.Version, r.Description
	if ffi.Name == "" {
		ffi.Name = "generated"
	}
	if ffi.Version == "" {
		ffi.Version = "0.0.1"
	}
	return ffi, nil
}

// event types of confirmed definitions.
const (
	interfaceConfirmed = "contract_interface_confirmed"
	apiConfirmed       = "contract_api_confirmed"
	definitionTopic    = "ff_definition"
)

// CreateInterface stores an interface. With publish it is then broadcast, and
// counts for the network when that is confirmed.
func (s *Service) CreateInterface(ctx context.Context, ffi *abi.Interface, publish bool) (*abi.Interface, error) {
	if publish && s.Define == nil {
		return nil, noNetwork()
	}
	if err := s.check(ffi); err != nil {
		return nil, err
	}
	id, networkName := s.NewID(), ffi.NetworkName
	s.number(ffi, id)
	ffi.NetworkName = ""
	row, err := rowOf(ffi)
	if err != nil {
		return nil, err
	}
	if networkName == "" {
		networkName = ffi.Name
	}
	err = s.DB.Write(ctx, func(tx *store.Tx) error {
		if publish {
			if err := s.networkNameFree(tx, networkName, ffi.Version); err != nil {
				return err
			}
		}
		if err := tx.InsertInterface(row); err != nil || publish {
			return err
		}
		return s.notify(tx, interfaceConfirmed, id, nil, definitionTopic, s.now())
	})
	switch {
	case errors.Is(err, store.ErrExists):
		return nil, interfaceTaken(ffi)
	case err != nil:
		return nil, err
	case publish:
		ffi.NetworkName = networkName
		return ffi, s.broadcastInterface(ctx, ffi)
	}
	s.Committed()
	return ffi, nil
}

func interfaceTaken(ffi *abi.Interface) error {
	return errs.Conflict("FF10407", "There is an interface %q of version %q already; choose another name or version", ffi.Name, ffi.Version)
}

func noNetwork() error {
	return errs.BadRequest("FF10414", "This namespace belongs to no network, so nothing can be published in it; leave %q out", "publish")
}

func (s *Service) networkNameFree(tx *store.Tx, name, version string) error {
	other, err := store.Optional(tx.InterfaceByNetworkName(s.Namespace, name, version))
	if err == nil && other != nil {
		return errs.Conflict("FF10448", "The network has an interface %q of version %q already; choose another %q", name, version, "networkName")
	}
	return err
}

// broadcastInterface sends the definition, under the name that the network is to
// know.
func (s *Service) broadcastInterface(ctx context.Context, ffi *abi.Interface) error {
	body := *ffi
	body.Namespace, body.Name, body.Published = "", ffi.NetworkName, true
	m, err := s.Define(ctx, TagInterface, body)
	if err == nil {
		ffi.Message = &m.Header.ID
	}
	return err
}

// check says what is wrong with an interface, and completes it.
func (s *Service) check(ffi *abi.Interface) error {
	for field, name := range map[string]string{"name": ffi.Name, "version": ffi.Version} {
		if err := identity.CheckName(field, name); err != nil {
			return err
		}
	}
	if ffi.NetworkName != "" {
		if err := identity.CheckName("networkName", ffi.NetworkName); err != nil {
			return err
		}
	}
	if err := ffi.Complete(); err != nil {
		return errs.Wrap(err, "FF10319", http.StatusBadRequest, "The interface %q is not usable", ffi.Name)
	}
	return nil
}

// number gives an interface and its children their ids.
func (s *Service) number(ffi *abi.Interface, id wire.UUID) {
	ffi.ID, ffi.Namespace, ffi.Message, ffi.Published = &id, s.Namespace, nil, false
	child := func() *wire.UUID { n := s.NewID(); return &n }
	for i := range ffi.Methods {
		m := &ffi.Methods[i]
		m.ID, m.Interface, m.Namespace = child(), &id, s.Namespace
	}
	for i := range ffi.Events {
		e := &ffi.Events[i]
		e.ID, e.Interface, e.Namespace = child(), &id, s.Namespace
	}
	for i := range ffi.Errors {
		e := &ffi.Errors[i]
		e.ID, e.Interface, e.Namespace = child(), &id, s.Namespace
	}
}

// rowOf is an interface as it is stored.
func rowOf(ffi *abi.Interface) (*store.Interface, error) {
	methods, err1 := json.Marshal(append([]abi.Method{}, ffi.Methods...))
	events, err2 := json.Marshal(append([]abi.Event{}, ffi.Events...))
	failures, err3 := json.Marshal(append([]abi.Error{}, ffi.Errors...))
	return &store.Interface{
		ID: *ffi.ID, Message: ffi.Message, Namespace: ffi.Namespace, Name: ffi.Name, NetworkName: ffi.NetworkName, Description: ffi.Description,
		Version: ffi.Version, Published: ffi.Published, Methods: methods, Events: events, Errors: failures,
	}, errors.Join(err1, err2, err3)
}

// interfaceOf is a stored interface with its children.
func interfaceOf(row *store.Interface) (*abi.Interface, error) {
	ffi := &abi.Interface{
		ID: &row.ID, Message: row.Message, Namespace: row.Namespace, Name: row.Name, NetworkName: row.NetworkName, Description: row.Description,
		Version: row.Version, Published: row.Published,
	}
	return ffi, errors.Join(json.Unmarshal(row.Methods, &ffi.Methods), json.Unmarshal(row.Events, &ffi.Events), json.Unmarshal(row.Errors, &ffi.Errors))
}

// Interface reads an interface with its children, by id or by name and version.
func (s *Service) Interface(ctx context.Context, ref store.InterfaceRef) (row *store.Interface, err error) {
	err = s.DB.Read(ctx, func(tx *store.Tx) error {
		row, err = s.find(tx, ref)
		return err
	})
	return row, err
}

func (s *Service) find(tx *store.Tx, ref store.InterfaceRef) (row *store.Interface, err error) {
	what := ref.Name + " " + ref.Version
	switch {
	case ref.ID != nil:
		what = ref.ID.String()
		row, err = tx.InterfaceByID(s.Namespace, *ref.ID)
	case ref.Name != "" && ref.Version != "":
		row, err = tx.InterfaceByName(s.Namespace, ref.Name, ref.Version)
	default:
		return nil, errs.BadRequest("FF10303", "field %q names no interface: give its %q, or its %q and %q", "interface", "id", "name", "version")
	}
	if errors.Is(err, store.ErrNoRows) {
		return nil, errs.New("FF10303", http.StatusNotFound, "There is no interface %q", what)
	}
	return row, err
}

// PublishInterface broadcasts an interface that is known here only.
func (s *Service) PublishInterface(ctx context.Context, name, version, networkName string) (*abi.Interface, error) {
	if s.Define == nil {
		return nil, noNetwork()
	}
	row, err := s.Interface(ctx, store.InterfaceRef{Name: name, Version: version})
	if err != nil {
		return nil, err
	}
	if row.Published {
		return nil, errs.Conflict("FF10450", "The interface %q of version %q is published already", name, version)
	}
	ffi, err := interfaceOf(row)
	if err != nil {
		return nil, err
	}
	if ffi.NetworkName = networkName; networkName == "" {
		ffi.NetworkName = ffi.Name
	}
	if err := identity.CheckName("networkName", ffi.NetworkName); err != nil {
		return nil, err
	}
	if err := s.DB.Read(ctx, func(tx *store.Tx) error { return s.networkNameFree(tx, ffi.NetworkName, version) }); err != nil {
		return nil, err
	}
	return ffi, s.broadcastInterface(ctx, ffi)
}

// DeleteInterface removes an interface that is not published and that no API has.
func (s *Service) DeleteInterface(ctx context.Context, id wire.UUID) error {
	err := s.DB.Write(ctx, func(tx *store.Tx) error {
		row, err := tx.InterfaceByID(s.Namespace, id)
		if errors.Is(err, store.ErrNoRows) {
			return errs.NoSuch("interface", id.String())
		}
		if err != nil {
			return err
		}
		if row.Published {
			return errs.Conflict("FF10449", "The interface %q is published; other members may use it, so it stays", row.Name)
		}
		n, err := tx.APIsOfInterface(id)
		if err != nil {
			return err
		}
		if n > 0 {
			return errs.Conflict("FF10449", "%d contract APIs have the interface %q; delete them first", n, row.Name)
		}
		return tx.DeleteInterface(id)
	})
	if err == nil {
		s.mu.Lock()
		delete(s.compiled, id)
		s.mu.Unlock()
	}
	return err
}

// use is an interface that is ready to use. Interfaces never change, so what was
// compiled once is good until it is deleted.
func (s *Service) use(ctx context.Context, id wire.UUID) (*contract, error) {
	s.mu.Lock()
	c := s.compiled[id]
	s.mu.Unlock()
	if c != nil {
		return c, nil
	}
	row, err := s.Interface(ctx, store.InterfaceRef{ID: &id})
	if err != nil {
		return nil, err
	}
	ffi, err := interfaceOf(row)
	if err != nil {
		return nil, err
	}
	c = &contract{methods: map[string]*method{}, events: map[string]*abi.Event{}, errors: ffi.Errors}
	for i := range ffi.Methods {
		m, err := ffi.Methods[i].Compile()
		if err != nil {
			return nil, err
		}
		c.methods[ffi.Methods[i].Pathname] = &method{m, ffi.Methods[i].Pathname}
	}
	for i := range ffi.Events {
		c.events[ffi.Events[i].Pathname] = &ffi.Events[i]
	}
	s.mu.Lock()
	s.compiled[id] = c
	s.mu.Unlock()
	return c, nil
}

// sameJSON compares JSON texts without regard to space.
func sameJSON(a, b json.RawMessage) bool {
	var x, y bytes.Buffer
	if json.Compact(&x, a) != nil || json.Compact(&y, b) != nil {
		return bytes.Equal(a, b)
	}
	return bytes.Equal(x.Bytes(), y.Bytes())
}
