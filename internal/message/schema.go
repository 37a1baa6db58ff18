package message

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
)

// maxSubschemas bounds a datatype's schema with its references written out. To
// validate a value costs at most about as many tests as that at each place of
// the value; a few lines of nested references could cost more than a lifetime.
const maxSubschemas = 4096

// boundReferences tests that the references of a schema are within the document
// and can be written out. Whether they can is a function of the text alone, and
// so is the verdict about whatever names the datatype: no clock bounds a
// validation.
func boundReferences(doc any) error {
	if top, ok := doc.(map[string]any); ok {
		// There an "id" inside changes what references mean, and is also a
		// common word in examples.
		if draft, _ := top["$schema"].(string); strings.Contains(draft, "draft-04") {
			return fmt.Errorf("%q names draft-04, which is not supported: use draft-06 or later", "$schema")
		}
	}
	x := expansion{doc: doc, sizes: map[string]int{}, open: map[string]bool{}}
	_, err := x.size(doc, true)
	return err
}

// expansion computes how large a schema is with its references written out.
type expansion struct {
	doc   any
	sizes map[string]int  // of what references name
	open  map[string]bool // those that are being followed
}

func (x *expansion) size(node any, top bool) (n int, err error) {
	add := func(child int, failed error) bool {
		n += child
		if err = failed; err == nil && n > maxSubschemas {
			err = fmt.Errorf("with its references written out it has more than %d parts", maxSubschemas)
		}
		return err == nil
	}
	switch node := node.(type) {
	case map[string]any:
		n = 1
		for _, word := range []string{"$dynamicRef", "$recursiveRef"} {
			if _, is := node[word].(string); is {
				return 0, fmt.Errorf("%q is not supported: use %q", word, "$ref")
			}
		}
		if _, is := node["$id"].(string); is && !top {
			return 0, fmt.Errorf("%q is supported at the top only", "$id")
		}
		if ref, is := node["$ref"].(string); is && !add(x.target(ref)) {
			return 0, err
		}
		for _, child := range node {
			if !add(x.size(child, false)) {
				return 0, err
			}
		}
	case []any:
		for _, child := range node {
			if !add(x.size(child, false)) {
				return 0, err
			}
		}
	}
	return n, nil
}

// target is the size of what a reference names.
func (x *expansion) target(ref string) (int, error) {
	if n, known := x.sizes[ref]; known {
		return n, nil
	}
	if x.open[ref] {
		return 0, fmt.Errorf("the reference %q leads back to itself", ref)
	}
	node, err := x.find(ref)
	if err != nil {
		return 0, err
	}
	x.open[ref] = true
	n, err := x.size(node, ref == "#")
	delete(x.open, ref)
	x.sizes[ref] = n
	return n, err
}

// find resolves a JSON pointer in a URI fragment (RFC 6901, section 6).
func (x *expansion) find(ref string) (node any, err error) {
	pointer, within := strings.CutPrefix(ref, "#")
	if within {
		pointer, err = url.PathUnescape(pointer)
	}
	if !within || err != nil || pointer != "" && pointer[0] != '/' {
		return nil, fmt.Errorf("the reference %q is no JSON pointer into the schema itself, such as %q", ref, "#/$defs/name")
	}
	node = x.doc
	for _, step := range strings.Split(pointer, "/")[1:] {
		step = strings.NewReplacer("~1", "/", "~0", "~").Replace(step)
		found := false
		switch at := node.(type) {
		case map[string]any:
			node, found = at[step]
		case []any:
			if i, err := strconv.Atoi(step); err == nil && i >= 0 && i < len(at) {
				node, found = at[i], true
			}
		}
		if !found {
			return nil, fmt.Errorf("the reference %q names nothing", ref)
		}
	}
	return node, nil
}
