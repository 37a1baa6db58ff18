package main

import "encoding/json"

// sbom returns a CycloneDX 1.6 bill of materials. It holds no time and no
// random serial number, so that the same modules give the same bytes.
func sbom(goVersion string, mods []*module) ([]byte, error) {
	type licence struct {
		License struct {
			ID Licence `json:"id"`
		} `json:"license"`
	}
	type component struct {
		Type     string    `json:"type"`
		Ref      string    `json:"bom-ref"`
		Name     string    `json:"name"`
		Version  string    `json:"version,omitempty"`
		Licenses []licence `json:"licenses"`
		PURL     string    `json:"purl,omitempty"`
	}
	of := func(kind, name, version, purl string, l Licence) component {
		c := component{Type: kind, Ref: name, Name: name, Version: version, PURL: purl, Licenses: make([]licence, 1)}
		c.Licenses[0].License.ID = l
		return c
	}
	const self = "github.com/parley-node/parley"
	components := []component{of("library", "std", goVersion, "pkg:golang/std@"+goVersion, bsd3)}
	refs := []string{"std"}
	for _, m := range mods {
		components = append(components, of("library", m.Path, m.Version, m.purl(), m.Licence))
		refs = append(refs, m.Path)
	}
	b, err := json.MarshalIndent(map[string]any{
		"bomFormat":   "CycloneDX",
		"specVersion": "1.6",
		"version":     1,
		"metadata":    map[string]any{"component": of("application", self, "", "", apache2)},
		"components":  components,
		"dependencies": []map[string]any{
			{"ref": self, "dependsOn": refs},
		},
	}, "", "  ")
	if err != nil {
		return nil, err
	}
	return append(b, '\n'), nil
}
