package healthcare

import (
	"bytes"
	"encoding/json"
	"image/png"
	"math"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

func decode[T any](t *testing.T, content []byte) (v T) {
	t.Helper()
	if err := json.Unmarshal(content, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func validate(t *testing.T, content []byte) error {
	t.Helper()
	datatype := decode[struct {
		Name, Version string
		Value         json.RawMessage
	}](t, DatatypeClaim)
	if datatype.Name != "claim" || datatype.Version != "1.0.0" {
		t.Fatalf("datatype is %s %s", datatype.Name, datatype.Version)
	}
	source, err := jsonschema.UnmarshalJSON(bytes.NewReader(datatype.Value))
	if err != nil {
		t.Fatal(err)
	}
	compiler := jsonschema.NewCompiler()
	if err := compiler.AddResource("claim.json", source); err != nil {
		t.Fatal(err)
	}
	schema, err := compiler.Compile("claim.json")
	if err != nil {
		t.Fatal(err)
	}
	record, err := jsonschema.UnmarshalJSON(bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	return schema.Validate(record)
}

func TestRecordConformsToTheDatatype(t *testing.T) {
	if err := validate(t, PrivateRecord); err != nil {
		t.Error(err)
	}
}

func TestInvalidRecordFailsForEachMistake(t *testing.T) {
	err := validate(t, RecordInvalid)
	if err == nil {
		t.Fatal("the datatype accepts it")
	}
	for _, where := range []string{"/patient", "/currency", "/items/1/quantity", "/amount"} {
		if !strings.Contains(err.Error(), "'"+where+"'") {
			t.Errorf("nothing is said about %s in %v", where, err)
		}
	}
}

type record struct {
	ClaimNumber string
	Items       []struct {
		Code             string
		Quantity, Amount int
	}
	Amount, PaidByPrimary, Requested int
}

// TestNumbersAgree checks that a reader who adds up finds no contradiction.
func TestNumbersAgree(t *testing.T) {
	claim := decode[record](t, PrivateRecord)
	prices := decode[struct {
		Items []struct {
			Code  string
			Price int
		}
	}](t, PriceList)
	reply := decode[struct {
		ClaimNumber string
		Approved    int
	}](t, Reply)

	priceOf := make(map[string]int)
	for _, p := range prices.Items {
		priceOf[p.Code] = p.Price
	}
	if len(priceOf) != 60 {
		t.Errorf("the price list has %d distinct codes, want 60", len(priceOf))
	}
	sum := 0
	for _, item := range claim.Items {
		if item.Amount != priceOf[item.Code]*item.Quantity {
			t.Errorf("%d of %s cost %d; the price list says %d each", item.Quantity, item.Code, item.Amount, priceOf[item.Code])
		}
		sum += item.Amount
	}
	if sum != claim.Amount || claim.Amount-claim.PaidByPrimary != claim.Requested {
		t.Errorf("items sum to %d of %d, paid %d, requested %d", sum, claim.Amount, claim.PaidByPrimary, claim.Requested)
	}
	if reply.ClaimNumber != claim.ClaimNumber || reply.Approved != claim.Requested {
		t.Errorf("reply %+v does not answer the claim", reply)
	}
}

type resource struct {
	ResourceType string
	Total        json.RawMessage
}

type bundle struct {
	ResourceType string
	Entry        []struct {
		FullURL  string
		Resource json.RawMessage
	}
}

func TestBundleIsWholeAndAgreesWithTheRecord(t *testing.T) {
	b := decode[bundle](t, ClaimBundle)
	if size := len(ClaimBundle); b.ResourceType != "Bundle" || size < 30_000 || size > 60_000 {
		t.Errorf("a %s of %d bytes, want a Bundle of 30 to 60 KB", b.ResourceType, size)
	}
	known, kinds := make(map[string]bool), make(map[string]json.RawMessage)
	for _, e := range b.Entry {
		known[e.FullURL] = true
		r := decode[resource](t, e.Resource)
		kinds[r.ResourceType] = r.Total
	}
	for _, kind := range []string{"Organization", "Practitioner", "Patient", "Coverage", "Condition", "Encounter", "Claim", "ExplanationOfBenefit"} {
		if _, ok := kinds[kind]; !ok {
			t.Errorf("no %s", kind)
		}
	}
	for _, part := range strings.Split(string(ClaimBundle), `"reference": "`)[1:] {
		if target, _, _ := strings.Cut(part, `"`); !known[target] {
			t.Errorf("reference to %s, which is not in the bundle", target)
		}
	}

	type money struct{ Value float64 }
	claim := decode[record](t, PrivateRecord)
	total := decode[money](t, kinds["Claim"])
	benefit := decode[[]struct{ Amount money }](t, kinds["ExplanationOfBenefit"])
	if math.Round(total.Value*100) != float64(claim.Amount) || len(benefit) != 2 ||
		math.Round(benefit[1].Amount.Value*100) != float64(claim.PaidByPrimary) {
		t.Errorf("bundle claims %v and pays %v; the record says %d and %d cents", total, benefit, claim.Amount, claim.PaidByPrimary)
	}
}

func TestScanIsAPicture(t *testing.T) {
	picture, err := png.Decode(bytes.NewReader(Scan))
	if err != nil {
		t.Fatal(err)
	}
	if size := len(Scan); size < 200_000 || size > 500_000 || picture.Bounds().Dx() < 1000 {
		t.Errorf("a picture of %v in %d bytes, want one of 200 to 500 KB", picture.Bounds(), size)
	}
}
