// Package healthcare embeds the sample files of the demo: an insurer and a
// hospital settle a claim, out of sight of another insurer and the regulator. Everything is synthetic. Which
// file is what stands in README.md.
package healthcare

import _ "embed"

var (
	// DatatypeClaim is the body of POST /datatypes that declares claim 1.0.0.
	//go:embed datatype-claim.json
	DatatypeClaim []byte

	// PriceList is the value that a member broadcasts to all.
	//go:embed pricelist.json
	PriceList []byte

	// PrivateRecord is the value that insurer A sends to the hospital. It
	// conforms to the datatype claim.
	//go:embed private-record.json
	PrivateRecord []byte

	// RecordInvalid is PrivateRecord with four mistakes; the datatype refuses it.
	//go:embed record-invalid.json
	RecordInvalid []byte

	// Reply is the value that the hospital answers with.
	//go:embed reply.json
	Reply []byte

	// ClaimBundle is a FHIR R4 Bundle (application/fhir+json) that travels as an
	// attachment.
	//go:embed claim-bundle.json
	ClaimBundle []byte

	// Scan is the paper form of the claim (image/png), an attachment too.
	//go:embed scan.png
	Scan []byte
)
