package store

// What is left of rows for those who may see records and proofs, and no
// payloads: everything but values, the names of files, and texts that may quote
// a value.

// WithoutPayload is the item with its hashes and sizes only.
func (d Data) WithoutPayload() Data {
	d.Value, d.Public = nil, ""
	if d.Blob != nil {
		d.Blob = &BlobRef{Hash: d.Blob.Hash, Size: d.Blob.Size}
	}
	return d
}

// withheld stands for a text that is not shown.
const withheld = "withheld"

// WithoutPayload is the message without the reason of a rejection, which may
// quote a value.
func (m Message) WithoutPayload() Message {
	if m.RejectReason != "" {
		m.RejectReason = withheld
	}
	return m
}

// WithoutPayload is the operation without its input and output.
func (o Operation) WithoutPayload() Operation {
	o.Input, o.Output = nil, nil
	if o.Error != "" {
		o.Error = withheld
	}
	return o
}
