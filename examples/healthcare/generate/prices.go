package main

import "fmt"

// price is one line of the price list. Codes are made up: real code sets
// belong to somebody.
type price struct {
	Code        string `json:"code"`
	Description string `json:"description"`
	Cents       int    `json:"price"` // in cents
}

// priceItems lists 60 procedures: 12 services, each for 5 parts of the body.
func priceItems() []price {
	services := []struct {
		prefix, name string
		cents        int
	}{
		{"EXM", "Examination of the", 8500}, {"XRY", "X-ray of the", 12400}, {"ULT", "Ultrasound of the", 16850},
		{"MRI", "Magnetic resonance image of the", 64000}, {"CTS", "Computed tomography of the", 48900},
		{"CST", "Cast for the", 21075}, {"SPL", "Splint for the", 9460}, {"BND", "Bandage of the", 3250},
		{"INJ", "Injection into the", 7780}, {"PHY", "Physiotherapy session for the", 6925},
		{"SUT", "Suture of the", 18300}, {"FOL", "Follow-up visit for the", 5590},
	}
	parts := []string{"ankle", "knee", "wrist", "elbow", "shoulder"}
	var prices []price
	for _, s := range services {
		for i, part := range parts {
			prices = append(prices, price{
				Code:        fmt.Sprintf("%s-%d", s.prefix, 101+i),
				Description: s.name + " " + part,
				Cents:       s.cents + 5*i*s.cents/100,
			})
		}
	}
	return prices
}

func priceList() ([]byte, error) {
	return indented(struct {
		Title     string  `json:"title"`
		Note      string  `json:"note"`
		ValidFrom string  `json:"validFrom"`
		ValidTo   string  `json:"validTo"`
		Currency  string  `json:"currency"`
		Unit      string  `json:"unit"`
		Items     []price `json:"items"`
	}{"Agreed prices 2026", "Synthetic: codes and prices are made up.", "2026-01-01", "2026-12-31", currency, "cents", priceItems()})
}
