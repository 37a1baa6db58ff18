package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// module is a module of which at least one package is linked.
type module struct {
	Path, Version string
	Dir           string
	Licence       Licence
	Texts         []text // licence and notice files, by name
	npm           bool   // it is no Go module, but an npm package
	packages      []string
	files         []string // the Go files that are linked, for a licence that stands only in their headers
}

// embedded are packages of other registries whose files the binary holds, with
// their licences beside them.
var embedded = []*module{{Path: "swagger-ui-dist", npm: true, Dir: "internal/swagger/dist"}}

// readVersion reads the version of an embedded package from the package.json of
// the folder above, which CI compares the files by.
func (m *module) readVersion() error {
	text, err := os.ReadFile(filepath.Join(filepath.Dir(m.Dir), "package.json"))
	if err != nil {
		return err
	}
	var p struct{ Dependencies map[string]string }
	if err := json.Unmarshal(text, &p); err != nil {
		return fmt.Errorf("package.json of %s: %w", m.Path, err)
	}
	if m.Version = p.Dependencies[m.Path]; m.Version == "" {
		return fmt.Errorf("package.json beside %s names no version of %s", m.Dir, m.Path)
	}
	return nil
}

// purl is the module's package URL.
func (m *module) purl() string {
	if m.npm {
		return "pkg:npm/" + m.Path + "@" + url.PathEscape(m.Version)
	}
	return "pkg:golang/" + m.Path + "@" + url.PathEscape(m.Version)
}

type text struct{ Name, Body string }

// linked asks the go command which modules the given packages link. The
// project's own module and the standard library are left out.
func linked(patterns []string) ([]*module, error) {
	cmd := exec.Command("go", append([]string{"list", "-deps", "-json=ImportPath,Dir,GoFiles,Module,Standard"}, patterns...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list -deps %s: %w", strings.Join(patterns, " "), err)
	}
	byPath := make(map[string]*module)
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p struct {
			ImportPath, Dir string
			GoFiles         []string
			Module          *struct {
				Path, Version, Dir string
				Main               bool
				Replace            *struct{ Path string }
			}
		}
		switch err := dec.Decode(&p); {
		case errors.Is(err, io.EOF):
			mods := make([]*module, 0, len(byPath))
			for _, m := range byPath {
				mods = append(mods, m)
			}
			slices.SortFunc(mods, func(a, b *module) int { return strings.Compare(a.Path, b.Path) })
			return mods, nil
		case err != nil:
			return nil, fmt.Errorf("go list -json: %w", err)
		}
		if p.Module == nil || p.Module.Main {
			continue
		}
		if p.Module.Replace != nil {
			return nil, fmt.Errorf("module %s is replaced by %s: replaced modules are not released", p.Module.Path, p.Module.Replace.Path)
		}
		m := byPath[p.Module.Path]
		if m == nil {
			m = &module{Path: p.Module.Path, Version: p.Module.Version, Dir: p.Module.Dir}
			byPath[m.Path] = m
		}
		m.packages = append(m.packages, p.ImportPath)
		for _, f := range p.GoFiles {
			m.files = append(m.files, filepath.Join(p.Dir, f))
		}
	}
}

var (
	licenceFile = regexp.MustCompile(`(?i)^(licen[cs]e|copying|unlicense)([-._].*)?$`)
	noticeFile  = regexp.MustCompile(`(?i)^(notice|copyright|patents)(\.(txt|md))?$`)
)

// readTexts finds a module's licence and notices and classifies them.
func (m *module) readTexts() error {
	entries, err := os.ReadDir(m.Dir)
	if err != nil {
		return fmt.Errorf("module %s: %w", m.Path, err)
	}
	if m.npm {
		if err := m.readVersion(); err != nil {
			return fmt.Errorf("package %s: %w", m.Path, err)
		}
	}
	m.Licence = unknown
	for _, e := range entries {
		isLicence := licenceFile.MatchString(e.Name())
		bundled := m.npm && strings.HasSuffix(e.Name(), ".LICENSE.txt") // of what the package has put into its own files
		if !e.Type().IsRegular() || !isLicence && !bundled && !noticeFile.MatchString(e.Name()) {
			continue
		}
		body, err := os.ReadFile(filepath.Join(m.Dir, e.Name()))
		if err != nil {
			return fmt.Errorf("module %s: %w", m.Path, err)
		}
		m.Texts = append(m.Texts, text{e.Name(), string(body)})
		if isLicence && (m.Licence == unknown || strings.EqualFold(e.Name(), "LICENSE")) {
			m.Licence = classify(string(body))
		}
	}
	// A repository under the LGPL carries the GPL too, which the LGPL amends.
	// That go-ethereum's commands are under the plain GPL is judged by check.
	for _, t := range m.Texts {
		if m.Licence == gpl3 && classify(t.Body) == lgpl3 {
			m.Licence = lgpl3
		}
	}
	if m.Licence == unknown {
		return m.readHeaders()
	}
	return nil
}

// readHeaders looks for a licence in the comment at the head of the linked
// files, which is where a module without a licence file has it.
func (m *module) readHeaders() error {
	for _, name := range m.files {
		f, err := os.Open(name)
		if err != nil {
			return fmt.Errorf("module %s: %w", m.Path, err)
		}
		var head strings.Builder
		for s := bufio.NewScanner(f); s.Scan() && !strings.HasPrefix(s.Text(), "package "); {
			head.WriteString(strings.TrimSpace(strings.TrimPrefix(s.Text(), "//")) + "\n")
		}
		f.Close()
		if l := classify(head.String()); l != unknown {
			m.Licence = l
			m.Texts = append(m.Texts, text{filepath.Base(name) + " (head of the file)", head.String()})
			return nil
		}
	}
	return nil
}

// check says why a module may not be linked, or nil.
func (m *module) check() error {
	if !allowed[m.Licence] {
		return fmt.Errorf("%s %s is under %s, which this project does not link: choose another module, "+
			"or correct classify.go if the licence was misread (%s)", m.Path, m.Version, m.Licence, m.Dir)
	}
	if m.Licence == lgpl3 {
		for _, p := range m.packages {
			if strings.HasPrefix(p, m.Path+"/cmd/") {
				return fmt.Errorf("%s is a command of %s, which is under the GPL: import its library packages only", p, m.Path)
			}
		}
	}
	return nil
}
