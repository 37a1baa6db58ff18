package main

import "strings"

// Licence is an SPDX identifier.
type Licence string

// The licences that the classifier tells apart.
const (
	unknown Licence = "NOASSERTION"
	apache2 Licence = "Apache-2.0"
	mit     Licence = "MIT"
	bsd2    Licence = "BSD-2-Clause"
	bsd3    Licence = "BSD-3-Clause"
	isc     Licence = "ISC"
	mpl2    Licence = "MPL-2.0"
	cc0     Licence = "CC0-1.0"
	unlic   Licence = "Unlicense"
	zlib    Licence = "Zlib"
	lgpl3   Licence = "LGPL-3.0-only"
	gpl3    Licence = "GPL-3.0-only"
	gpl2    Licence = "GPL-2.0-only"
	agpl3   Licence = "AGPL-3.0-only"
	busl    Licence = "BUSL-1.1"
)

// allowed are the licences that a binary under Apache-2.0 may link: the
// permissive ones, MPL (file by file) and LGPL (whoever receives the binary
// can link it again with another version, because all sources are public).
var allowed = map[Licence]bool{
	apache2: true, mit: true, bsd2: true, bsd3: true, isc: true, mpl2: true, cc0: true, unlic: true, zlib: true, lgpl3: true,
}

// phrases lists words that only the text of one licence has. The order
// matters where one text quotes another: the strictest come first, so that a
// file that holds several licences is judged by the worst of them. The GPL's
// own text names the LGPL and the AGPL, so there only a title counts.
var phrases = []struct {
	licence Licence
	inTitle bool     // the words are the title, not quoted further down
	all     []string // in lower case, white space collapsed
}{
	{busl, false, []string{"business source license"}},
	{agpl3, true, []string{"gnu affero general public license", "version 3"}},
	{lgpl3, true, []string{"gnu lesser general public license", "version 3"}},
	{gpl3, true, []string{"gnu general public license", "version 3"}},
	{gpl2, true, []string{"gnu general public license", "version 2"}},
	{mpl2, false, []string{"mozilla public license", "2.0"}},
	{apache2, false, []string{"apache license", "2.0"}},
	{bsd3, false, []string{"redistribution and use in source and binary forms", "neither the name"}},
	{bsd3, false, []string{"redistribution and use in source and binary forms", "may not be used to endorse"}},
	{bsd2, false, []string{"redistribution and use in source and binary forms"}},
	{mit, false, []string{"permission is hereby granted, free of charge"}},
	{isc, false, []string{"permission to use, copy, modify, and", "distribute this software for any purpose"}},
	{cc0, false, []string{"cc0 1.0 universal"}},
	{unlic, false, []string{"this is free and unencumbered software"}},
	{zlib, false, []string{"altered source versions must be plainly marked"}},
	// Last, the modules that only name a licence.
	{mit, false, []string{"mit software license"}},
	{mit, false, []string{"mit license"}},
}

// classify names the licence of a text, or unknown.
func classify(text string) Licence {
	text = strings.Join(strings.Fields(strings.ToLower(strings.ReplaceAll(text, "*", " "))), " ")
	title := text[:min(len(text), 60)]
next:
	for _, p := range phrases {
		in := text
		if p.inTitle {
			in = title
		}
		for _, words := range p.all {
			if !strings.Contains(in, words) {
				continue next
			}
		}
		return p.licence
	}
	return unknown
}
