package identity

// Tags of the definition messages by which identities are announced.
const (
	TagClaim  = "identity_claim"
	TagUpdate = "identity_update"
)
