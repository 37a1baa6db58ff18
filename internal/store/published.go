package store

// Publish records that every member of a namespace's network may fetch a blob
// by its hash; once is enough.
func (tx *Tx) Publish(namespace string, hash Hex, at Time) error {
	return tx.Send(`INSERT INTO published (namespace, hash, created) VALUES ($1, $2, $3) ON CONFLICT (namespace, hash) DO NOTHING`,
		namespace, string(hash), at)
}

// Published says whether a blob may be fetched by every member of a namespace's
// network.
func (tx *Tx) Published(namespace string, hash Hex) (bool, error) {
	var n int
	err := tx.QueryRow(`SELECT COUNT(*) FROM published WHERE namespace = $1 AND hash = $2`, namespace, string(hash)).Scan(&n)
	return n > 0, err
}

// Withdraw ends the publication of a blob, unless a data item of the namespace
// still shows the reference under which it was published.
func (tx *Tx) Withdraw(namespace string, hash Hex, reference string) error {
	return tx.Send(`DELETE FROM published WHERE namespace = $1 AND hash = $2
		AND NOT EXISTS (SELECT 1 FROM data WHERE namespace = $1 AND (public = $3 OR blob_public = $3))`, namespace, string(hash), reference)
}

// ShowPublished writes the public reference of a data item's value or, if blob,
// of its blob; ErrNoRows if there is no such item.
func (tx *Tx) ShowPublished(namespace string, id UUID, blob bool, reference string) error {
	column := "public"
	if blob {
		column = "blob_public"
	}
	return tx.must(`UPDATE data SET `+column+` = $1 WHERE id = $2 AND namespace = $3`, reference, id, namespace)
}
