package message

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/parley-node/parley/internal/errs"
	"github.com/parley-node/parley/internal/identity"
	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/wire"
)

// TagDatatype marks the definition message of a datatype.
const TagDatatype = "define_datatype"

// DatatypeInput is a datatype to be defined: a JSON schema with a name.
type DatatypeInput struct {
	Name      string          `json:"name"`
	Version   string          `json:"version"`
	Validator string          `json:"validator,omitempty"`
	Value     json.RawMessage `json:"value"`
}

// datatypeDefinition is what a datatype's definition message carries.
type datatypeDefinition struct {
	ID        wire.UUID       `json:"id"`
	Name      string          `json:"name"`
	Version   string          `json:"version"`
	Validator string          `json:"validator"`
	Value     json.RawMessage `json:"value"`
}

// DefineDatatype broadcasts a datatype. It is usable once it is confirmed; the
// first definition of a name and version in ledger order wins.
func (s *Service) DefineDatatype(ctx context.Context, in DatatypeInput) (*store.Datatype, *store.Message, error) {
	if err := identity.CheckName("name", in.Name); err != nil {
		return nil, nil, err
	}
	if err := identity.CheckName("version", in.Version); err != nil {
		return nil, nil, err
	}
	d := datatypeDefinition{ID: s.NewID(), Name: in.Name, Version: in.Version, Validator: strings.ToLower(in.Validator)}
	if d.Validator == "" {
		d.Validator = validatorJSON
	}
	if d.Validator != validatorJSON {
		return nil, nil, errs.New("FF10200", 400, "field %q holds %q: a datatype is validated by json", "validator", in.Validator)
	}
	text, err := canonicalText(in.Value)
	if err != nil {
		return nil, nil, errs.New("FF10196", 400, "field %q is no valid JSON: %v", "value", err)
	}
	d.Value = text
	if _, err := s.schemas.compile(text); err != nil {
		return nil, nil, errs.New("FF10196", 400, "field %q is no usable JSON schema: %v", "value", err)
	}
	err = s.DB.Read(ctx, func(tx *store.Tx) error {
		have, err := store.Optional(tx.DatatypeByName(s.Namespace, in.Name, in.Version))
		if err == nil && have != nil {
			return errs.New("FF10193", 409, "datatype %s version %s is defined already: choose another version", in.Name, in.Version)
		}
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	m, err := s.Define(ctx, TagDatatype, d)
	if err != nil {
		return nil, nil, err
	}
	row := s.datatypeRow(d, MessageID(m), m.Header.Created)
	return &row, m, nil
}

func (s *Service) datatypeRow(d datatypeDefinition, message *wire.UUID, at store.Time) store.Datatype {
	return store.Datatype{
		ID: d.ID, Message: message, Validator: d.Validator, Namespace: s.Namespace, Name: d.Name, Version: d.Version,
		Hash: dataHash(&store.Data{Value: d.Value}), Created: at, Value: d.Value,
	}
}

// ApplyDatatype stores a confirmed datatype, or says why it is invalid. See
// Definitions.
func (s *Service) ApplyDatatype(tx *store.Tx, in Definition) (Defined, error) {
	var d datatypeDefinition
	if err := json.Unmarshal(in.Body, &d); err != nil {
		return Defined{Reject: fmt.Sprintf("datatype definition: %v", err)}, nil
	}
	if identity.CheckName("name", d.Name) != nil || identity.CheckName("version", d.Version) != nil || d.Validator != validatorJSON || d.ID == (wire.UUID{}) {
		return Defined{Reject: fmt.Sprintf("datatype %q version %q is not named and typed as a datatype must be", d.Name, d.Version)}, nil
	}
	// Members must agree on the text, because it is hashed.
	if text, err := canonicalText(d.Value); err != nil || string(text) != string(d.Value) {
		return Defined{Reject: "the datatype's schema is not in its compact form"}, nil
	}
	if _, err := s.schemas.compile(d.Value); err != nil {
		return Defined{Reject: fmt.Sprintf("the datatype's schema is not usable: %v", err)}, nil
	}
	row := s.datatypeRow(d, in.MessageID(), in.At)
	err := tx.InsertDatatype(&row)
	if errors.Is(err, store.ErrExists) {
		return Defined{Reject: fmt.Sprintf("datatype %s version %s was defined before", d.Name, d.Version)}, nil
	}
	return Defined{Event: "datatype_confirmed", Ref: d.ID}, err
}
