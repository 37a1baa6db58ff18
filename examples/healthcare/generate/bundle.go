package main

import (
	"encoding/json"
	"fmt"

	"github.com/google/uuid"
)

// The shapes below are HL7 FHIR R4 (https://hl7.org/fhir/R4/): a Bundle of type
// collection whose resources refer to each other by urn:uuid.

type (
	object = map[string]any
	list   = []any
)

const (
	currency    = "USD"
	procedures  = "https://example.org/parley-sample/procedures"
	identifiers = "https://example.org/parley-sample/id/"
	terminology = "http://terminology.hl7.org/CodeSystem/"
	createdOn   = "2026-03-02"
	claimNumber = "CLM-2026-000417"
)

// urn gives each resource of the sample its fixed identity.
func urn(name string) string {
	return "urn:uuid:" + uuid.NewSHA1(uuid.NameSpaceURL, []byte(identifiers+name)).String()
}

func reference(name, display string) object {
	return object{"reference": urn(name), "display": display}
}

func identifier(system, value string) list {
	return list{object{"system": identifiers + system, "value": value}}
}

func concept(system, code, display string) object {
	return object{"coding": list{object{"system": system, "code": code, "display": display}}, "text": display}
}

// money renders cents as FHIR's decimal, which keeps both digits.
func money(cents int) object {
	return object{"value": json.Number(fmt.Sprintf("%d.%02d", cents/100, cents%100)), "currency": currency}
}

// claimed says which procedures the sample claims, and how many of each.
func claimed() []item {
	all := priceItems()
	var items []item
	for i := 2; len(items) < 13; i += 3 {
		p := all[i%len(all)]
		items = append(items, item{price: p, quantity: 1 + len(items)%3})
	}
	return items
}

type item struct {
	price
	quantity int
}

func (i item) net() int { return i.Cents * i.quantity }

// allowed is what the insurer accepts: the list price less a tenth of every
// third item.
func (i item) allowed(sequence int) int {
	if sequence%3 == 0 {
		return i.net() * 9 / 10
	}
	return i.net()
}

// claimBundle builds the bundle that the demo sends with a private message.
func claimBundle() ([]byte, error) {
	resources := []struct {
		name     string
		resource object
	}{
		{"insurer-a", organization("insurer-a", "ins", "Insurance Company", "Example Insurer A (synthetic)")},
		{"insurer-b", organization("insurer-b", "ins", "Insurance Company", "Example Insurer B (synthetic)")},
		{"clinic", organization("clinic", "prov", "Healthcare Provider", "Sampletown Clinic (synthetic)")},
		{"practitioner", practitioner()},
		{"patient", patient()},
		{"coverage-a", coverage("coverage-a", "insurer-a", "Example Insurer A (synthetic)", 1)},
		{"coverage-b", coverage("coverage-b", "insurer-b", "Example Insurer B (synthetic)", 2)},
		{"condition", condition()},
		{"encounter", encounter()},
		{"claim", claim()},
		{"benefit", explanationOfBenefit()},
	}
	var entries list
	for _, r := range resources {
		r.resource["id"] = urn(r.name)[len("urn:uuid:"):]
		r.resource["meta"] = object{"tag": list{object{
			"system": terminology + "v3-ActReason", "code": "HTEST", "display": "test health data"}}}
		entries = append(entries, object{"fullUrl": urn(r.name), "resource": r.resource})
	}
	return indented(object{
		"resourceType": "Bundle",
		"type":         "collection",
		"identifier":   object{"system": identifiers + "bundle", "value": claimNumber},
		"timestamp":    createdOn + "T09:30:00Z",
		"entry":        entries,
	})
}

func organization(id, code, kind, name string) object {
	return object{
		"resourceType": "Organization",
		"identifier":   identifier("organization", id),
		"active":       true,
		"type":         list{concept(terminology+"organization-type", code, kind)},
		"name":         name,
		"telecom":      list{object{"system": "email", "value": id + "@example.org", "use": "work"}},
		"address":      list{object{"line": list{"1 Sample Street"}, "city": "Sampletown", "postalCode": "00000", "country": "US"}},
	}
}

func practitioner() object {
	return object{
		"resourceType":  "Practitioner",
		"identifier":    identifier("practitioner", "PRAC-0001"),
		"active":        true,
		"name":          list{object{"use": "official", "family": "Testphysician", "given": list{"Synthia"}, "prefix": list{"Dr."}}},
		"qualification": list{object{"code": concept(terminology+"v2-0360", "MD", "Doctor of Medicine")}},
	}
}

func patient() object {
	return object{
		"resourceType":         "Patient",
		"identifier":           identifier("member", "MBR-000-SYNTHETIC"),
		"active":               true,
		"name":                 list{object{"use": "official", "family": "Sampleperson", "given": list{"Testina", "Q"}}},
		"gender":               "female",
		"birthDate":            "1980-01-01",
		"address":              list{object{"use": "home", "line": list{"99 Nowhere Lane"}, "city": "Sampletown", "postalCode": "00000", "country": "US"}},
		"managingOrganization": reference("clinic", "Sampletown Clinic (synthetic)"),
	}
}

func coverage(id, insurer, name string, order int) object {
	return object{
		"resourceType": "Coverage",
		"identifier":   identifier("coverage", id),
		"status":       "active",
		"type":         concept(terminology+"v3-ActCode", "EHCPOL", "extended healthcare"),
		"subscriberId": "MBR-000-SYNTHETIC",
		"beneficiary":  reference("patient", "Testina Q Sampleperson"),
		"relationship": concept(terminology+"subscriber-relationship", "self", "Self"),
		"period":       object{"start": "2026-01-01", "end": "2026-12-31"},
		"payor":        list{reference(insurer, name)},
		"order":        order,
	}
}

func condition() object {
	return object{
		"resourceType":   "Condition",
		"identifier":     identifier("condition", "COND-0001"),
		"clinicalStatus": concept(terminology+"condition-clinical", "active", "Active"),
		"code":           diagnosis(),
		"subject":        reference("patient", "Testina Q Sampleperson"),
		"recordedDate":   "2026-02-10",
	}
}

func diagnosis() object {
	return concept("http://hl7.org/fhir/sid/icd-10", "S82.6", "Fracture of lateral malleolus")
}

func encounter() object {
	return object{
		"resourceType": "Encounter",
		"identifier":   identifier("encounter", "ENC-0001"),
		"status":       "finished",
		"class":        object{"system": terminology + "v3-ActCode", "code": "AMB", "display": "ambulatory"},
		"subject":      reference("patient", "Testina Q Sampleperson"),
		"participant":  list{object{"individual": reference("practitioner", "Dr. Synthia Testphysician")}},
		"period":       object{"start": "2026-02-10T08:00:00Z", "end": "2026-02-10T11:45:00Z"},
		"diagnosis":    list{object{"condition": reference("condition", "Fracture of lateral malleolus")}},

		"serviceProvider": reference("clinic", "Sampletown Clinic (synthetic)"),
	}
}

func claim() object {
	total := 0
	var items list
	for i, it := range claimed() {
		total += it.net()
		items = append(items, object{
			"sequence":          i + 1,
			"careTeamSequence":  list{1},
			"diagnosisSequence": list{1},
			"productOrService":  concept(procedures, it.Code, it.Description),
			"servicedDate":      "2026-02-10",
			"quantity":          object{"value": it.quantity},
			"unitPrice":         money(it.Cents),
			"net":               money(it.net()),
			"encounter":         list{reference("encounter", "Ambulatory visit")},
		})
	}
	return object{
		"resourceType":   "Claim",
		"identifier":     identifier("claim", claimNumber),
		"status":         "active",
		"type":           concept(terminology+"claim-type", "professional", "Professional"),
		"use":            "claim",
		"patient":        reference("patient", "Testina Q Sampleperson"),
		"billablePeriod": object{"start": "2026-02-10", "end": "2026-02-10"},
		"created":        createdOn,
		"insurer":        reference("insurer-a", "Example Insurer A (synthetic)"),
		"provider":       reference("clinic", "Sampletown Clinic (synthetic)"),
		"priority":       concept(terminology+"processpriority", "normal", "Normal"),
		"careTeam": list{object{
			"sequence": 1, "provider": reference("practitioner", "Dr. Synthia Testphysician"), "responsible": true,
			"role": concept(terminology+"claimcareteamrole", "primary", "Primary provider")}},
		"diagnosis": list{object{"sequence": 1, "diagnosisReference": reference("condition", "Fracture of lateral malleolus")}},
		"insurance": list{
			object{"sequence": 1, "focal": true, "coverage": reference("coverage-a", "Coverage by insurer A")},
			object{"sequence": 2, "focal": false, "coverage": reference("coverage-b", "Coverage by insurer B")},
		},
		"item":  items,
		"total": money(total),
	}
}

func explanationOfBenefit() object {
	adjudication := func(code, display string, cents int) object {
		return object{"category": concept(terminology+"adjudication", code, display), "amount": money(cents)}
	}
	submitted, allowed := 0, 0
	var items list
	for i, it := range claimed() {
		accepted := it.allowed(i + 1)
		submitted, allowed = submitted+it.net(), allowed+accepted
		items = append(items, object{
			"sequence":         i + 1,
			"itemSequence":     list{i + 1},
			"productOrService": concept(procedures, it.Code, it.Description),
			"quantity":         object{"value": it.quantity},
			"net":              money(it.net()),
			"adjudication": list{
				adjudication("submitted", "Submitted Amount", it.net()),
				adjudication("eligible", "Eligible Amount", accepted),
			},
		})
	}
	return object{
		"resourceType": "ExplanationOfBenefit",
		"identifier":   identifier("benefit", "EOB-2026-000417"),
		"status":       "active",
		"type":         concept(terminology+"claim-type", "professional", "Professional"),
		"use":          "claim",
		"patient":      reference("patient", "Testina Q Sampleperson"),
		"created":      createdOn,
		"insurer":      reference("insurer-a", "Example Insurer A (synthetic)"),
		"provider":     reference("clinic", "Sampletown Clinic (synthetic)"),
		"claim":        reference("claim", claimNumber),
		"outcome":      "partial",
		"disposition":  "Every third item is paid at nine tenths of its price. Synthetic sample.",
		"insurance":    list{object{"focal": true, "coverage": reference("coverage-a", "Coverage by insurer A")}},
		"item":         items,
		"total": list{
			adjudication("submitted", "Submitted Amount", submitted),
			adjudication("eligible", "Eligible Amount", allowed),
		},
	}
}
