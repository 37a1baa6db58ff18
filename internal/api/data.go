package api

import (
	"encoding/json"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"strconv"
	"strings"

	"github.com/parley-node/parley/internal/blob"
	"github.com/parley-node/parley/internal/errs"
	"github.com/parley-node/parley/internal/message"
	"github.com/parley-node/parley/internal/store"
	"github.com/parley-node/parley/wire"
)

// Headers of a blob's download.
const (
	headerBlobHash = "x-ff-blob-hash-sha256"
	headerBlobSize = "x-ff-blob-size"
)

// Bounds of an upload's form fields, which come before the file.
const (
	maxFields     = 100
	maxFieldBytes = 1 << 20
)

func postData(c *call) (any, error) {
	if c.form {
		return c.upload()
	}
	var in message.DataInput
	if err := c.decode(&in); err != nil {
		return nil, err
	}
	return c.Messages.AddData(c.ctx(), in)
}

// upload reads a multipart form: fields, and then the file, whose bytes go to
// the blob store as they come.
func (c *call) upload() (any, error) {
	src := c.reader(c.Limits.Blob)
	_, params, err := mime.ParseMediaType(c.r.Header.Get("Content-Type"))
	if err != nil || params["boundary"] == "" {
		return nil, errs.BadRequest(codeBadBody, "The content type %q has no boundary of the form's parts", shorten(c.r.Header.Get("Content-Type")))
	}
	form := multipart.NewReader(src, params["boundary"])
	fields, file, err := readFields(form)
	if err != nil {
		return nil, formError(src, err)
	}
	in := message.DataInput{Validator: fields["validator"]}
	if name, version := fields["datatype.name"], fields["datatype.version"]; name != "" || version != "" {
		in.Datatype = &store.DatatypeRef{Name: name, Version: version}
	}
	if meta, given := fields["metadata"]; given && meta != "" {
		if in.Value = json.RawMessage(meta); !json.Valid(in.Value) {
			if in.Value, err = json.Marshal(meta); err != nil {
				return nil, err
			}
		}
	}
	content := &fileReader{part: file}
	d, err := c.Messages.AddBlob(c.ctx(), in, content, file.FileName(), file.Header.Get("Content-Type"), strings.EqualFold(fields["autometa"], "true"))
	if content.err != nil {
		return nil, formError(src, content.err)
	}
	if err != nil {
		return nil, err
	}
	if part, err := form.NextPart(); err == nil {
		// The data is stored, but not as its sender meant it.
		return nil, errs.BadRequest("FF00163", "Form field %q comes after the file; send all fields before it", shorten(part.FormName()))
	}
	if _, err := io.Copy(io.Discard, src); err != nil {
		return nil, formError(src, err)
	}
	src.done()
	return d, nil
}

// readFields reads the form up to the file.
func readFields(form *multipart.Reader) (fields map[string]string, file *multipart.Part, err error) {
	fields = map[string]string{}
	for {
		part, err := form.NextPart()
		if errors.Is(err, io.EOF) {
			return nil, nil, errs.BadRequest("FF00163", "The form has no file: send one part with a file name, after all fields")
		}
		if err != nil {
			return nil, nil, err
		}
		if part.FileName() != "" {
			return fields, part, nil
		}
		text, err := io.ReadAll(io.LimitReader(part, maxFieldBytes+1))
		if err != nil {
			return nil, nil, err
		}
		if len(text) > maxFieldBytes || len(fields) >= maxFields {
			return nil, nil, errs.New(codeTooLarge, http.StatusRequestEntityTooLarge,
				"The form has too much before its file: at most %d fields of %d bytes; send content as the file", maxFields, maxFieldBytes)
		}
		fields[part.FormName()] = string(text)
	}
}

// fileReader remembers why the file could not be read, to tell a broken upload
// from a fault of the blob store.
type fileReader struct {
	part *multipart.Part
	err  error
}

func (f *fileReader) Read(p []byte) (int, error) {
	n, err := f.part.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		f.err = err
	}
	return n, err
}

// formError is the client's fault behind an error of reading a form.
func formError(src *bodyReader, err error) error {
	if e, ok := errors.AsType[*errs.Error](err); ok {
		return e
	}
	if failed := src.failure(err); failed != nil {
		return failed
	}
	return errs.BadRequest(codeBadBody, "The form cannot be read: %s", shorten(err.Error()))
}

// dataItem reads the item that the path names.
func (c *call) dataItem() (*store.Data, error) {
	id, err := c.uuid("dataid")
	if err != nil {
		return nil, err
	}
	d, err := store.Get(c.ctx(), c.DB, store.DataItems, c.Namespace, id.String())
	if err != nil {
		return nil, err
	}
	return &d, nil
}

func getDataValue(c *call) (any, error) {
	d, err := c.dataItem()
	if err != nil {
		return nil, err
	}
	value := []byte(d.Value)
	if value == nil {
		value = []byte("null")
	}
	return text{"application/json", value}, nil
}

// getDataBlob streams a blob. It is not found until all of it is here.
func getDataBlob(c *call) (any, error) {
	d, err := c.dataItem()
	if err != nil && errs.Code(err) != errs.CodeNotFound {
		return nil, err
	}
	if err != nil || d.Blob == nil || d.Blob.Hash == "" {
		return nil, errs.NoResult()
	}
	hash, err := wire.ParseHash(string(d.Blob.Hash))
	if err != nil {
		return nil, err
	}
	r, err := c.Blobs.Open(c.ctx(), hash, 0)
	if errors.Is(err, blob.ErrNotFound) {
		return nil, errs.NoResult()
	}
	if err != nil {
		return nil, err
	}
	return download{r, d.Blob}, nil
}

// download is a blob on its way to the client.
type download struct {
	content io.ReadCloser
	blob    *store.BlobRef
}

func (d download) respond(c *call) error {
	defer d.content.Close()
	h := c.w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Content-Length", strconv.FormatInt(d.blob.Size, 10))
	h.Set(headerBlobHash, string(d.blob.Hash))
	h.Set(headerBlobSize, strconv.FormatInt(d.blob.Size, 10))
	c.w.WriteHeader(http.StatusOK)
	if c.r.Method == http.MethodHead {
		return nil
	}
	if _, err := io.Copy(c.w, d.content); err != nil {
		// The status is sent: only a broken connection can tell the client that
		// the content is not complete.
		c.Logger.Warn("a blob's download broke off", "blob", d.blob.Hash, "request", c.r.Header.Get(headerRequestID), "error", err)
		panic(http.ErrAbortHandler)
	}
	return nil
}

// getDataMessages lists the messages that carry a data item.
func getDataMessages(c *call) (any, error) {
	q, err := c.parse(&store.Messages.Collection)
	if err != nil {
		return nil, err
	}
	d, err := c.dataItem()
	if err != nil {
		return nil, err
	}
	var carriers []*store.Message
	err = c.DB.Read(c.ctx(), func(tx *store.Tx) (err error) {
		carriers, err = tx.MessagesOfData(c.Namespace, d.ID)
		return err
	})
	if err != nil {
		return nil, err
	}
	seqs := make([]any, len(carriers))
	for i, m := range carriers {
		seqs[i] = m.Seq
	}
	if err := q.Where(&store.Messages.Collection, "sequence", seqs...); err != nil {
		return nil, err
	}
	return listQuery(c, store.Messages, q)
}

// deleteData removes a data item that was not sent, and erases one that was, which
// needs what other erasures need.
func deleteData(c *call) (any, error) {
	id, err := c.uuid("dataid")
	if err != nil {
		return nil, err
	}
	author := c.author("")
	return nil, c.Messages.DeleteData(c.ctx(), id, author, func() error { return permit(c.caller, needs["postDataErase"], c.Namespace) })
}

// getSubPaths lists the blob folders directly below one.
func getSubPaths(c *call) (any, error) {
	parent := "/" + strings.Trim(c.path("parent"), "/")
	var paths []string
	err := c.DB.Read(c.ctx(), func(tx *store.Tx) (err error) {
		paths, err = tx.SubPaths(c.Namespace, parent)
		return err
	})
	if paths == nil {
		paths = []string{}
	}
	return paths, err
}

// postDatatype broadcasts a datatype.
func postDatatype(c *call, in message.DatatypeInput) (any, error) {
	var d *store.Datatype
	_, err := c.confirmed(func() (m *store.Message, err error) {
		d, m, err = c.Messages.DefineDatatype(c.ctx(), in)
		return m, err
	})
	if err != nil || !c.flag("confirm") {
		return d, err
	}
	return store.Get(c.ctx(), c.DB, store.Datatypes, c.Namespace, d.ID.String())
}

func getDatatype(c *call) (any, error) {
	var d *store.Datatype
	err := c.DB.Read(c.ctx(), func(tx *store.Tx) (err error) {
		d, err = store.Optional(tx.DatatypeByName(c.Namespace, c.path("name"), c.path("version")))
		return err
	})
	if err == nil && d == nil {
		return nil, errs.NoResult()
	}
	return d, err
}
