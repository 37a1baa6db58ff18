package contract

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"github.com/parley-node/parley/internal/errs"
	"github.com/parley-node/parley/internal/identity"
	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/wire"
)

// APIInput is a contract API as an application describes it.
type APIInput struct {
	Name        string             `json:"name"`
	NetworkName string             `json:"networkName,omitempty"`
	Interface   store.InterfaceRef `json:"interface"`
	Location    json.RawMessage    `json:"location,omitempty"` // {"address"}; without it each call says where
}

// api checks an input and makes the row of it.
func (s *Service) api(tx *store.Tx, in APIInput) (*store.ContractAPI, *store.Interface, error) {
	if err := identity.CheckName("name", in.Name); err != nil {
		return nil, nil, err
	}
	if in.NetworkName != "" {
		if err := identity.CheckName("networkName", in.NetworkName); err != nil {
			return nil, nil, err
		}
	}
	ffi, err := s.find(tx, in.Interface)
	if err != nil {
		return nil, nil, err
	}
	a := &store.ContractAPI{ID: s.NewID(), Namespace: s.Namespace, Interface: store.InterfaceRef{ID: &ffi.ID}, Name: in.Name}
	if !empty(in.Location) {
		at, err := address("location", in.Location)
		if err != nil {
			return nil, nil, err
		}
		a.Location = place(at)
	}
	return a, ffi, nil
}

// CreateAPI stores a contract API. With publish it is then broadcast, and counts
// for the network when that is confirmed.
func (s *Service) CreateAPI(ctx context.Context, in APIInput, publish bool) (a *store.ContractAPI, err error) {
	if publish && s.Define == nil {
		return nil, noNetwork()
	}
	err = s.DB.Write(ctx, func(tx *store.Tx) error {
		var ffi *store.Interface
		if a, ffi, err = s.api(tx, in); err != nil {
			return err
		}
		if err := tx.InsertAPI(a); err != nil {
			return err
		}
		if publish {
			return s.publishable(tx, a, ffi, in.NetworkName)
		}
		return s.notify(tx, apiConfirmed, a.ID, nil, definitionTopic, s.now())
	})
	switch {
	case errors.Is(err, store.ErrExists):
		return nil, apiTaken(in.Name)
	case err != nil:
		return nil, err
	case publish:
		return a, s.broadcastAPI(ctx, a)
	}
	s.Committed()
	return a, nil
}

func apiTaken(name string) error {
	return errs.Conflict("FF10407", "There is a contract API %q already; choose another name, or change it with PUT", name)
}

// publishable checks what the network requires of a contract API, and sets the
// name that it is to have there.
func (s *Service) publishable(tx *store.Tx, a *store.ContractAPI, ffi *store.Interface, networkName string) error {
	if !ffi.Published {
		return errs.Conflict("FF10451", "The interface %q is not published; publish it first", ffi.Name)
	}
	if a.NetworkName = networkName; networkName == "" {
		a.NetworkName = a.Name
	}
	other, err := store.Optional(tx.APIByNetworkName(s.Namespace, a.NetworkName))
	if err == nil && other != nil {
		return errs.Conflict("FF10448", "The network has a contract API %q already; choose another %q", a.NetworkName, "networkName")
	}
	return err
}

// UpdateAPI replaces the interface of a contract API by another version, and
// gives it a location if it has none. A location never changes.
func (s *Service) UpdateAPI(ctx context.Context, id wire.UUID, in APIInput) (a *store.ContractAPI, err error) {
	err = s.DB.Write(ctx, func(tx *store.Tx) error {
		had, err := tx.APIByID(s.Namespace, id)
		if errors.Is(err, store.ErrNoRows) {
			return errs.NoSuch("contract API", id.String())
		}
		if err != nil {
			return err
		}
		if had.Published {
			return errs.Conflict("FF10449", "The contract API %q is published; other members rely on it, so it stays as it is", had.Name)
		}
		if in.Name == "" {
			in.Name = had.Name
		}
		if in.Name != had.Name {
			return errs.BadRequest("FF10316", "field %q holds %q: the name %q of a contract API stays", "name", in.Name, had.Name)
		}
		if a, _, err = s.api(tx, in); err != nil {
			return err
		}
		a.ID = id
		switch {
		case len(a.Location) == 0:
			a.Location = had.Location
		case len(had.Location) > 0 && !sameJSON(a.Location, had.Location):
			return errs.BadRequest("FF10316", "field %q holds %s: the contract API %q is at %s, which stays; make another one", "location", a.Location, had.Name, had.Location)
		}
		if err := tx.UpdateAPI(a); err != nil {
			return err
		}
		return s.notify(tx, apiConfirmed, a.ID, nil, definitionTopic, s.now())
	})
	if err == nil {
		s.Committed()
	}
	return a, err
}

// broadcastAPI sends the definition of a contract API.
func (s *Service) broadcastAPI(ctx context.Context, a *store.ContractAPI) error {
	m, err := s.Define(ctx, TagAPI, apiDefinition{ID: a.ID, Name: a.NetworkName, Interface: *a.Interface.ID, Location: a.Location})
	if err == nil {
		a.Message = &m.Header.ID
	}
	return err
}

// API reads a contract API.
func (s *Service) API(ctx context.Context, name string) (a *store.ContractAPI, err error) {
	err = s.DB.Read(ctx, func(tx *store.Tx) error {
		a, err = tx.APIByName(s.Namespace, name)
		return err
	})
	if errors.Is(err, store.ErrNoRows) {
		return nil, errs.New(errs.CodeNilResult, http.StatusNotFound, "There is no contract API %q", name)
	}
	return a, err
}

// PublishAPI broadcasts a contract API that is known here only.
func (s *Service) PublishAPI(ctx context.Context, name, networkName string) (*store.ContractAPI, error) {
	if s.Define == nil {
		return nil, noNetwork()
	}
	a, err := s.API(ctx, name)
	if err != nil {
		return nil, err
	}
	if a.Published {
		return nil, errs.Conflict("FF10450", "The contract API %q is published already", name)
	}
	if networkName != "" {
		if err := identity.CheckName("networkName", networkName); err != nil {
			return nil, err
		}
	}
	err = s.DB.Read(ctx, func(tx *store.Tx) error {
		ffi, err := tx.InterfaceByID(s.Namespace, *a.Interface.ID)
		if err != nil {
			return err
		}
		return s.publishable(tx, a, ffi, networkName)
	})
	if err != nil {
		return nil, err
	}
	return a, s.broadcastAPI(ctx, a)
}

// DeleteAPI removes a contract API that is not published.
func (s *Service) DeleteAPI(ctx context.Context, name string) error {
	return s.DB.Write(ctx, func(tx *store.Tx) error {
		a, err := tx.APIByName(s.Namespace, name)
		if errors.Is(err, store.ErrNoRows) {
			return errs.NoSuch("contract API", name)
		}
		if err != nil {
			return err
		}
		if a.Published {
			return errs.Conflict("FF10449", "The contract API %q is published; other members may use it, so it stays", name)
		}
		return tx.DeleteAPI(a.ID)
	})
}
