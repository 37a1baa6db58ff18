package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestClassify(t *testing.T) {
	for _, c := range []struct {
		text string
		want Licence
	}{
		{"MIT License\n\nCopyright (c) 2020 A\n\nPermission is hereby granted,\n free of charge, to any person", mit},
		{"   Apache License\n   Version 2.0, January 2004", apache2},
		{"Redistribution and use in source and binary forms, with or without\n * modification. Neither the name of", bsd3},
		{"Redistribution and use in source and binary forms, with or without modification, are permitted", bsd2},
		{"Mozilla Public License Version 2.0\n====", mpl2},
		{"GNU LESSER GENERAL PUBLIC LICENSE\n Version 3, 29 June 2007", lgpl3},
		{"GNU GENERAL PUBLIC LICENSE\n Version 3, 29 June 2007 … the GNU Affero General Public License", gpl3},
		{"GNU AFFERO GENERAL PUBLIC LICENSE\n Version 3, 19 November 2007", agpl3},
		{"Business Source License 1.1 … Change License: Apache License, Version 2.0", busl},
		{"All rights reserved.", unknown},
		{"", unknown},
	} {
		if got := classify(c.text); got != c.want {
			t.Errorf("classify(%.40q) = %s, want %s", c.text, got, c.want)
		}
	}
}

func TestModule(t *testing.T) {
	const gpl, lgpl = "GNU GENERAL PUBLIC LICENSE Version 3", "GNU LESSER GENERAL PUBLIC LICENSE Version 3"
	for _, c := range []struct {
		name  string
		files map[string]string
		used  []string
		want  Licence
		fault string // "" where it may be linked
	}{
		{"plain", map[string]string{"LICENSE": "permission is hereby granted, free of charge"}, nil, mit, ""},
		{"gpl", map[string]string{"COPYING": gpl}, nil, gpl3, "GPL-3.0"},
		{"gpl with an exception", map[string]string{"COPYING": gpl, "COPYING.LESSER": lgpl}, []string{"m/core"}, lgpl3, ""},
		{"a command under the gpl", map[string]string{"COPYING": gpl, "COPYING.LESSER": lgpl}, []string{"m/cmd/x"}, lgpl3, "under the GPL"},
		{"in the head of a file", map[string]string{"a.go": "// Permission is hereby granted,\n// free of charge\npackage a\n"}, nil, mit, ""},
		{"none", map[string]string{"a.go": "package a\n// Permission is hereby granted, free of charge\n"}, nil, unknown, "NOASSERTION"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := &module{Path: "m", Dir: t.TempDir(), packages: c.used}
			for name, body := range c.files {
				path := filepath.Join(m.Dir, name)
				if err := os.WriteFile(path, []byte(body), 0o600); err != nil {
					t.Fatal(err)
				}
				if strings.HasSuffix(name, ".go") {
					m.files = append(m.files, path)
				}
			}
			if err := m.readTexts(); err != nil {
				t.Fatal(err)
			}
			err := m.check()
			if m.Licence != c.want || (err == nil) != (c.fault == "") || err != nil && !strings.Contains(err.Error(), c.fault) {
				t.Errorf("%s, check: %v; want %s and %q", m.Licence, err, c.want, c.fault)
			}
		})
	}
}

func TestNoticesShareATextAndTheBillIsStable(t *testing.T) {
	mods := []*module{
		{Path: "a", Version: "v1.0.0", Licence: mit, Texts: []text{{"LICENSE", "one text\n"}}},
		{Path: "b", Version: "v1.2.0+incompatible", Licence: mit, Texts: []text{{"LICENSE", "one text\n"}}},
	}
	if got := string(notices(mods)); strings.Count(got, "one text") != 1 || !strings.Contains(got, "## a LICENSE, b LICENSE\n") {
		t.Errorf("notices:\n%s", got)
	}
	first, err := sbom("1.26.0", mods)
	if err != nil {
		t.Fatal(err)
	}
	again, err := sbom("1.26.0", mods)
	if err != nil {
		t.Fatal(err)
	}
	if string(first) != string(again) || !strings.Contains(string(first), `"purl": "pkg:golang/a@v1.0.0"`) {
		t.Errorf("bill of materials:\n%s", first)
	}
}
