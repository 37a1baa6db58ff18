package contract

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/google/uuid"

	"github.com/parley-node/parley/internal/abi"
	"github.com/parley-node/parley/internal/identity"
	"github.com/parley-node/parley/internal/message"
	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/wire"
)

// Tags of the definitions that this package applies.
const (
	TagInterface = "define_ffi"
	TagAPI       = "define_contract_api"
)

// apiDefinition is the broadcast form of a contract API.
type apiDefinition struct {
	ID        wire.UUID       `json:"id"`
	Name      string          `json:"name"` // on the network
	Interface wire.UUID       `json:"interface"`
	Location  json.RawMessage `json:"location,omitempty"`
}

// ApplyInterface takes a confirmed definition of an interface. It is rejected, at
// every member alike, if it is not usable or the network has one of its name and
// version; a name that is taken only here gets a number.
func (s *Service) ApplyInterface(tx *store.Tx, d message.Definition) (message.Defined, error) {
	var ffi abi.Interface
	if err := json.Unmarshal(d.Body, &ffi); err != nil {
		return message.Defined{Reject: fmt.Sprintf("interface: %v", err)}, nil
	}
	if ffi.ID == nil || *ffi.ID == uuid.Nil {
		return message.Defined{Reject: "interface: it has no id"}, nil
	}
	if err := s.check(&ffi); err != nil {
		return message.Defined{Reject: "interface: " + err.Error()}, nil
	}
	id, networkName := *ffi.ID, ffi.Name
	if other, err := store.Optional(tx.InterfaceByNetworkName(s.Namespace, networkName, ffi.Version)); err != nil || other != nil {
		return message.Defined{Reject: fmt.Sprintf("the network has an interface %q of version %q already", networkName, ffi.Version)}, err
	}
	own, err := store.Optional(tx.InterfaceByID(s.Namespace, id))
	switch {
	case err != nil:
		return message.Defined{}, err
	case own != nil && own.Published:
		return message.Defined{Reject: fmt.Sprintf("interface %s is published already", id)}, nil
	case own != nil:
		err = tx.PublishInterface(id, &d.Message.Header.ID, networkName)
	default:
		s.number(&ffi, id)
		ffi.Message, ffi.Published, ffi.NetworkName = &d.Message.Header.ID, true, networkName
		ffi.Name, err = freeName(networkName, func(name string) (bool, error) {
			other, err := store.Optional(tx.InterfaceByName(s.Namespace, name, ffi.Version))
			return other == nil, err
		})
		if err != nil {
			return message.Defined{}, err
		}
		row, rowErr := rowOf(&ffi)
		if rowErr != nil {
			return message.Defined{}, rowErr
		}
		err = tx.InsertInterface(row)
	}
	return message.Defined{Event: interfaceConfirmed, Ref: id}, err
}

// ApplyAPI takes a confirmed definition of a contract API. It is rejected, at
// every member alike, if its interface is not published or the network has one
// of its name.
func (s *Service) ApplyAPI(tx *store.Tx, d message.Definition) (message.Defined, error) {
	var def apiDefinition
	if err := json.Unmarshal(d.Body, &def); err != nil {
		return message.Defined{Reject: fmt.Sprintf("contract API: %v", err)}, nil
	}
	if def.ID == uuid.Nil {
		return message.Defined{Reject: "contract API: it has no id"}, nil
	}
	if err := identity.CheckName("name", def.Name); err != nil {
		return message.Defined{Reject: "contract API: " + err.Error()}, nil
	}
	a := &store.ContractAPI{ID: def.ID, Namespace: s.Namespace, Interface: store.InterfaceRef{ID: &def.Interface}, NetworkName: def.Name, Message: &d.Message.Header.ID, Published: true}
	if !empty(def.Location) {
		at, err := address("location", def.Location)
		if err != nil {
			return message.Defined{Reject: "contract API: " + err.Error()}, nil
		}
		a.Location = place(at)
	}
	ffi, err := store.Optional(tx.InterfaceByID(s.Namespace, def.Interface))
	if err != nil {
		return message.Defined{}, err
	}
	if ffi == nil || !ffi.Published {
		return message.Defined{Reject: fmt.Sprintf("contract API %q: its interface %s is not published", def.Name, def.Interface)}, nil
	}
	if other, err := store.Optional(tx.APIByNetworkName(s.Namespace, def.Name)); err != nil || other != nil {
		return message.Defined{Reject: fmt.Sprintf("the network has a contract API %q already", def.Name)}, err
	}
	own, err := store.Optional(tx.APIByID(s.Namespace, def.ID))
	switch {
	case err != nil:
		return message.Defined{}, err
	case own != nil && own.Published:
		return message.Defined{Reject: fmt.Sprintf("contract API %s is published already", def.ID)}, nil
	case own != nil:
		err = tx.PublishAPI(def.ID, a.Message, def.Name)
	default:
		a.Name, err = freeName(def.Name, func(name string) (bool, error) {
			other, err := store.Optional(tx.APIByName(s.Namespace, name))
			return other == nil, err
		})
		if err != nil {
			return message.Defined{}, err
		}
		err = tx.InsertAPI(a)
	}
	return message.Defined{Event: apiConfirmed, Ref: def.ID}, err
}

// freeName is a name, or the first of name-1, name-2 … that is free.
func freeName(name string, free func(string) (bool, error)) (string, error) {
	for n := 0; n < 1000; n++ {
		candidate := name
		if n > 0 {
			candidate = fmt.Sprintf("%s-%d", name, n)
		}
		if ok, err := free(candidate); ok || err != nil {
			return candidate, err
		}
	}
	return "", errors.New("no name is free like " + name)
}
