package message

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"sync"

	"github.com/parley-node/parley/internal/blob"
	"github.com/parley-node/parley/internal/errs"
	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/wire"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

// DataInput is a value of a message: inline, or by the id of stored data.
type DataInput struct {
	ID        *wire.UUID         `json:"id,omitempty"`
	Hash      store.Hex          `json:"hash,omitempty"`
	Validator string             `json:"validator,omitempty"`
	Datatype  *store.DatatypeRef `json:"datatype,omitempty"`
	Value     json.RawMessage    `json:"value,omitempty"`
}

// namesStored says whether the database must be asked about an entry.
func (d DataInput) namesStored() bool { return d.ID != nil && d.Value == nil || d.Datatype != nil }

const (
	validatorJSON       = "json"
	validatorNone       = "none"
	validatorDefinition = "definition"

	definitionDatatype = "datatype" // wire.Definition.Kind
)

func blobRow(b blob.Info, at store.Time) *store.Blob {
	return &store.Blob{Hash: store.Hex(b.Hash.String()), Size: b.Size, Chunks: b.Chunks, Created: at}
}

func newSalt() (h wire.Hash) {
	if _, err := rand.Read(h[:]); err != nil {
		panic(err) // never returns an error since Go 1.24
	}
	return h
}

// AddData stores a value by itself, to be sent later by its id.
func (s *Service) AddData(ctx context.Context, in DataInput) (*store.Data, error) {
	if in.ID != nil {
		in.ID = nil // ids are given here
	}
	return s.addData(ctx, in, nil, "", "")
}

// AddBlob stores the bytes of r durably and a data item that refers to them.
// The file name goes into the value with autometa; see api_behaviour "blob.name"
// for where the item's name comes from.
func (s *Service) AddBlob(ctx context.Context, in DataInput, r io.Reader, filename, mimetype string, autometa bool) (*store.Data, error) {
	s.blobUse.RLock()
	defer s.blobUse.RUnlock()
	info, err := s.Blobs.Put(ctx, r)
	if err != nil {
		return nil, err
	}
	var meta map[string]json.RawMessage
	if err := json.Unmarshal(orNull(in.Value), &meta); err != nil || meta == nil {
		meta = map[string]json.RawMessage{}
		if autometa && in.Value != nil {
			return nil, errs.New("FF10292", 400, "field %q is no JSON object, so that autometa cannot add to it", "metadata")
		}
	}
	if autometa {
		for k, v := range map[string]string{"filename": filename, "mimetype": mimetype} {
			if meta[k], err = json.Marshal(v); err != nil {
				return nil, err
			}
		}
		if in.Value, err = json.Marshal(meta); err != nil {
			return nil, err
		}
	}
	name, dir := blobName(meta, filename, autometa)
	return s.addData(ctx, in, &info, name, dir)
}

func orNull(v json.RawMessage) json.RawMessage {
	if v == nil {
		return json.RawMessage("null")
	}
	return v
}

// blobName is the value's name, else its path and filename, else the file's
// name; and the folder part of it.
func blobName(meta map[string]json.RawMessage, filename string, autometa bool) (name, dir string) {
	text := func(k string) (v string) {
		if json.Unmarshal(orNull(meta[k]), &v) != nil {
			return ""
		}
		return v
	}
	switch {
	case text("name") != "":
		name = text("name")
	case text("path") != "" || text("filename") != "":
		name = path.Join(text("path"), text("filename"))
	case autometa:
		name = filename
	}
	if name == "" {
		return "", ""
	}
	dir = path.Dir("/" + strings.TrimPrefix(name, "/"))
	return name, dir
}

func (s *Service) addData(ctx context.Context, in DataInput, info *blob.Info, name, dir string) (*store.Data, error) {
	var row *store.Data
	err := s.DB.Read(ctx, func(tx *store.Tx) (err error) {
		row, err = s.newData(tx, in, info, name, dir)
		return err
	})
	if err != nil {
		return nil, err
	}
	return row, s.DB.Write(ctx, func(tx *store.Tx) error {
		if info != nil {
			if err := tx.InsertBlob(blobRow(*info, row.Created)); err != nil {
				return err
			}
		}
		return tx.InsertData([]*store.Data{row})
	})
}

// newData checks a value and computes its hash and commitment. tx may be nil if
// the entry names nothing stored.
func (s *Service) newData(tx *store.Tx, in DataInput, info *blob.Info, name, dir string) (*store.Data, error) {
	row := &store.Data{ID: s.NewID(), Validator: strings.ToLower(in.Validator), Namespace: s.Namespace, Created: s.now(), Datatype: in.Datatype, Seed: newSalt()}
	if row.Validator == "" {
		row.Validator = validatorJSON
	}
	switch row.Validator {
	case validatorJSON, validatorNone, validatorDefinition:
	default:
		return nil, errs.New("FF10200", 400, "field %q holds %q: use json or none", "data.validator", in.Validator)
	}
	if in.Value != nil {
		text, err := canonicalText(in.Value)
		if err != nil {
			return nil, errs.New("FF10199", 400, "field %q is no valid JSON: %v", "data.value", err)
		}
		row.Value = text
	}
	if in.Datatype != nil && (in.Datatype.Name != "" || in.Datatype.Version != "") {
		def, err := store.Optional(tx.DatatypeByName(s.Namespace, in.Datatype.Name, in.Datatype.Version))
		if err != nil {
			return nil, err
		}
		if def == nil {
			return nil, errs.New("FF10195", 400, "field %q names datatype %s version %s, which is not defined here: broadcast it with POST datatypes and wait for its confirmation", "data.datatype", in.Datatype.Name, in.Datatype.Version)
		}
		if row.Validator == validatorJSON {
			if row.Value == nil {
				return nil, errs.New("FF10199", 400, "field %q is missing: datatype %s version %s validates it", "data.value", in.Datatype.Name, in.Datatype.Version)
			}
			if err := s.schemas.validate(def.Value, row.Value); err != nil {
				return nil, errs.New("FF10198", 400, "field %q does not conform to datatype %s version %s: %v", "data.value", in.Datatype.Name, in.Datatype.Version, err)
			}
		}
		h := wire.DefinitionHash(definitionDatatype, def.Value)
		row.DatatypeHash = &h
	} else {
		row.Datatype = nil
	}
	if row.Value == nil && info == nil {
		return nil, errs.New("FF10205", 400, "field %q has an entry with neither an id nor a value: give one", "data")
	}
	if info != nil {
		row.Blob = &store.BlobRef{Hash: store.Hex(info.Hash.String()), Size: info.Size, Name: name, Path: dir}
		root := wire.BlobRoot(info.Chunks)
		row.BlobRoot = &root
	}
	row.Hash = dataHash(row)
	d, err := dataItem(row)
	if err != nil {
		return nil, err
	}
	row.Commitment, err = d.Commitment()
	return row, err
}

// canonicalText is the JSON text that is stored, hashed and returned: without
// insignificant white space, with <, > and & escaped, all else as it came.
func canonicalText(v []byte) ([]byte, error) {
	var compact, escaped bytes.Buffer
	if err := json.Compact(&compact, v); err != nil {
		return nil, err
	}
	json.HTMLEscape(&escaped, compact.Bytes())
	return escaped.Bytes(), nil
}

// dataHash is the hash that existing clients compute: of the value's text, of
// the blob's bytes, or of both hashes' text joined.
func dataHash(d *store.Data) store.Hex {
	sum := func(b []byte) store.Hex {
		h := sha256.Sum256(b)
		return store.Hex(hex.EncodeToString(h[:]))
	}
	switch {
	case d.Blob == nil:
		return sum(d.Value)
	case d.Value == nil:
		return d.Blob.Hash
	}
	return sum([]byte(string(sum(d.Value)) + string(d.Blob.Hash)))
}

// dataItem is a row in the form that its commitment covers.
func dataItem(d *store.Data) (wire.DataItem, error) {
	w := wire.DataItem{ID: d.ID, Seed: d.Seed, Validator: d.Validator, Value: d.Value}
	if d.Datatype != nil && d.DatatypeHash != nil {
		w.Datatype = &wire.DatatypeRef{Name: d.Datatype.Name, Version: d.Datatype.Version, Hash: *d.DatatypeHash}
	}
	if d.Blob != nil {
		if d.BlobRoot == nil {
			return w, fmt.Errorf("data %s has a blob without a root", d.ID)
		}
		h, err := wire.ParseHash(string(d.Blob.Hash))
		if err != nil {
			return w, err
		}
		w.Blob = &wire.BlobRef{Size: d.Blob.Size, Root: *d.BlobRoot, Hash: h, Name: d.Blob.Name, Path: d.Blob.Path}
	}
	return w, nil
}

// dataRow is the inverse of dataItem for a received item.
func (s *Service) dataRow(w *wire.DataItem, commitment wire.Hash, at store.Time) *store.Data {
	d := &store.Data{ID: w.ID, Seed: w.Seed, Validator: w.Validator, Namespace: s.Namespace, Created: at, Value: w.Value, Commitment: commitment}
	if w.Datatype != nil {
		d.Datatype = &store.DatatypeRef{Name: w.Datatype.Name, Version: w.Datatype.Version}
		d.DatatypeHash = &w.Datatype.Hash
	}
	if w.Blob != nil {
		d.Blob = &store.BlobRef{Hash: store.Hex(w.Blob.Hash.String()), Size: w.Blob.Size, Name: w.Blob.Name, Path: w.Blob.Path}
		d.BlobRoot = &w.Blob.Root
	}
	if w.Seed.IsZero() { // of what is erased nothing is left to be hashed
		return d
	}
	d.Hash = dataHash(d)
	return d
}

// resolveData finds or makes the row of each entry.
func (s *Service) resolveData(tx *store.Tx, in []DataInput) ([]*store.Data, error) {
	items := make([]*store.Data, 0, len(in))
	for _, d := range in {
		if d.ID == nil || d.Value != nil {
			row, err := s.newData(tx, d, nil, "", "")
			if err != nil {
				return nil, err
			}
			items = append(items, row)
			continue
		}
		row, err := store.Optional(tx.DataByID(s.Namespace, *d.ID))
		if err != nil {
			return nil, err
		}
		if row == nil || d.Hash != "" && d.Hash != row.Hash {
			return nil, errs.New("FF10204", 400, "field %q names data %s, which is not stored here: upload it first", "data.id", d.ID)
		}
		if row.Erasure != nil {
			return nil, errs.New("FF10204", 400, "field %q names data %s, which was erased (GET erasures/%s): send its value again", "data.id", d.ID, row.Erasure)
		}
		items = append(items, row)
	}
	return items, nil
}

// schemaCache keeps compiled JSON schemas by the hash of their text.
type schemaCache struct {
	mu       sync.Mutex
	compiled map[wire.Hash]*schema
}

type schema struct {
	schema *jsonschema.Schema
	err    error
}

const maxSchemas = 1000

// Compile says whether a text is a usable JSON schema.
func (c *schemaCache) compile(text []byte) (*jsonschema.Schema, error) {
	h := wire.DefinitionHash(definitionDatatype, text)
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.compiled[h]; s != nil {
		return s.schema, s.err
	}
	if len(c.compiled) >= maxSchemas {
		clear(c.compiled)
	}
	s := &schema{}
	s.schema, s.err = compileSchema(text)
	c.compiled[h] = s
	return s.schema, s.err
}

func compileSchema(text []byte) (*jsonschema.Schema, error) {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	if err := boundReferences(doc); err != nil {
		return nil, err
	}
	c := jsonschema.NewCompiler()
	c.UseLoader(noLoader{})
	if err := c.AddResource("datatype.json", doc); err != nil {
		return nil, err
	}
	return c.Compile("datatype.json")
}

// noLoader keeps a schema from reaching for files or the network: a verdict
// depends on the definition alone.
type noLoader struct{}

func (noLoader) Load(url string) (any, error) {
	return nil, fmt.Errorf("a datatype must not refer to another document (%s)", url)
}

// validate checks a value against a schema's text.
func (c *schemaCache) validate(text, value []byte) error {
	s, err := c.compile(text)
	if err != nil {
		return fmt.Errorf("its schema does not compile: %w", err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(value))
	if err != nil {
		return err
	}
	err = s.Validate(doc)
	var invalid *jsonschema.ValidationError
	if errors.As(err, &invalid) {
		return errors.New(reasonOf(invalid))
	}
	return err
}

// reasonOf is the deepest cause with its place in the value.
func reasonOf(v *jsonschema.ValidationError) string {
	for len(v.Causes) > 0 {
		v = v.Causes[0]
	}
	return strings.Join(strings.Fields(v.Error()), " ")
}
