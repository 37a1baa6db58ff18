package check

import (
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// writable tells whether a schema's references are JSON pointers into itself,
// and written out leave it no more than 4096 objects.
func writable(doc any) bool {
	if top, ok := doc.(map[string]any); ok {
		if draft, _ := top["$schema"].(string); strings.Contains(draft, "draft-04") {
			return false
		}
	}
	left := 4096
	var write func(node any, top bool, within []string) bool
	write = func(node any, top bool, within []string) bool {
		if list, ok := node.([]any); ok {
			return !slices.ContainsFunc(list, func(child any) bool { return !write(child, false, within) })
		}
		object, ok := node.(map[string]any)
		if !ok {
			return true
		}
		if left--; left < 0 {
			return false
		}
		for word, child := range object {
			text, isText := child.(string)
			switch {
			case !isText:
				if !write(child, false, within) {
					return false
				}
			case word == "$dynamicRef", word == "$recursiveRef", word == "$id" && !top:
				return false
			case word == "$ref":
				target, ok := pointed(doc, text)
				if !ok || slices.Contains(within, text) || !write(target, text == "#", append(slices.Clone(within), text)) {
					return false
				}
			}
		}
		return true
	}
	return write(doc, true, nil)
}

// pointed follows a JSON pointer in a fragment.
func pointed(doc any, ref string) (any, bool) {
	text, err := url.PathUnescape(strings.TrimPrefix(ref, "#"))
	if err != nil || !strings.HasPrefix(ref, "#") || text != "" && text[0] != '/' {
		return nil, false
	}
	for _, step := range strings.Split(text, "/")[1:] {
		step = strings.ReplaceAll(strings.ReplaceAll(step, "~1", "/"), "~0", "~")
		ok := false
		switch at := doc.(type) {
		case map[string]any:
			doc, ok = at[step]
		case []any:
			if i, err := strconv.Atoi(step); err == nil && i >= 0 && i < len(at) {
				doc, ok = at[i], true
			}
		}
		if !ok {
			return nil, false
		}
	}
	return doc, true
}
