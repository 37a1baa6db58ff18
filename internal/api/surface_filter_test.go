package api_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"testing"
)

// list is ok for a list that is filtered: besides its plain form it checks the
// counted one, pages, sort orders, and each filter with a value that is there and
// one that is not. It returns all items.
func (c *caller) list(path string) []any {
	c.Helper()
	c.w.net.Quiet() // else what is under way changes lists between two requests
	whole := query(path, "limit=1000")
	items, isList := c.ok(whole, "").([]any)
	if !isList {
		c.Fatalf("%s: no list", path)
	}
	c.pages(path, items)
	c.orders(whole, items)
	c.filters(whole, items)
	return items
}

// some is list where something must be there.
func (c *caller) some(path string) []any {
	c.Helper()
	items := c.list(path)
	if len(items) == 0 {
		c.Fatalf("%s: nothing is there", path)
	}
	return items
}

// query adds parameters to a path.
func query(path, params string) string {
	if strings.Contains(path, "?") {
		return path + "&" + params
	}
	return path + "?" + params
}

// counted reads the envelope that ?count makes.
func (c *caller) counted(path string) (items []any, count, total int) {
	c.Helper()
	a := c.call(path, "").is(200, "")
	var e struct {
		Count, Total *int
	}
	if err := json.Unmarshal(a.body, &e); err != nil || e.Count == nil || e.Total == nil {
		c.Fatalf("%s: the counted form is %s", a.what, a.body)
	}
	items, isList := at(decode(c.T, a), "items").([]any)
	if !isList {
		c.Fatalf("%s: the counted form is %s", a.what, a.body)
	}
	return items, *e.Count, *e.Total
}

// pages checks the counted form and its pages; all are the items without a limit.
func (c *caller) pages(path string, all []any) {
	c.Helper()
	first := all[:min(len(all), 25)]
	for _, flag := range []string{"count", "count=", "count=true", "count=TRUE"} {
		if items, count, total := c.counted(query(path, flag)); count != len(first) || total != len(all) || !same(items, first) {
			c.Errorf("%s with %s: %d of %d, want %d of %d", path, flag, count, total, len(first), len(all))
		}
	}
	for none, want := range map[string][]any{
		"count=false": first, "count=1": first, "skip=0$": first, "unknown=1&namespace=x": first,
		"limit=0": all, "limit=x": all, "skip=x&limit=y": all, "limit=0&skip=1": all[min(len(all), 1):], // what is no number counts as zero
	} {
		if items, isList := c.ok(query(path, none), "").([]any); !isList || !same(items, want) {
			c.Errorf("%s with %s has %d entries, want %d", path, none, len(items), len(want))
		}
	}
	for skip := range min(len(all), 3) {
		items, count, total := c.counted(query(path, fmt.Sprintf("skip=%d&limit=1&count", skip)))
		if count != 1 || total != len(all) || !same(items, all[skip:skip+1]) {
			c.Errorf("%s: entry %d is %v", path, skip, items)
		}
	}
	if items, count, total := c.counted(query(path, fmt.Sprintf("skip=%d&count", len(all)))); items == nil || count != 0 || total != len(all) {
		c.Errorf("%s: beyond the end there are %d of %d", path, count, total)
	}
	c.fails(query(path, "limit=1001"), "", 400, "FF00192")
	c.fails(query(path, "skip=1001"), "", 400, "FF00191")
}

func same(a, b []any) bool {
	x, err := json.Marshal(a)
	if err != nil {
		return false
	}
	y, err := json.Marshal(b)
	return err == nil && string(x) == string(y)
}

// orders checks that the newest comes first, and what else can be asked for.
func (c *caller) orders(path string, all []any) {
	c.Helper()
	field := "created"
	if _, there := c.fields()["timestamp"]; there {
		field = "timestamp"
	}
	if _, there := c.fields()[field]; !there {
		return
	}
	times := func(path string) (list []string) {
		c.Helper()
		items, _ := c.ok(path, "").([]any)
		for _, item := range items {
			list = append(list, padded(fmt.Sprint(flatten(item)[field])))
		}
		return list
	}
	up := times(query(path, "sort="+field))
	if len(up) != len(all) || !slices.IsSorted(up) {
		c.Errorf("%s sorted by %s: %v", path, field, up)
	}
	down := slices.Clone(up)
	slices.Reverse(down)
	for _, params := range []string{"sort=-" + field, "sort=" + field + "&descending", "sort=nosuch,-" + field, "sort=-" + field + "&sort=nosuch"} {
		if got := times(query(path, params)); !slices.Equal(got, down) {
			c.Errorf("%s with %s: %v, want %v", path, params, got, down)
		}
	}
	if got := times(query(path, "sort=-"+field+"&ascending=true")); !slices.Equal(got, up) {
		c.Errorf("%s, ascending: %v, want %v", path, got, up)
	}
}

// padded makes times sort as text.
func padded(t string) string {
	whole, fraction, _ := strings.Cut(strings.TrimSuffix(t, "Z"), ".")
	return whole + "." + (fraction + "000000000")[:9]
}

// fields are those that the operation's list is filtered by.
func (c *caller) fields() map[string]string { return c.shapes.sf.Filters[c.op.Filter] }

// hidden are filters of what results do not show, each with one that selects
// all and one that selects nothing.
var hidden = map[string][2]string{
	"Message.sequence":     {">0", "<0"},
	"Subscription.filters": {"^{", "@nobody uses this text"},
	"Subscription.options": {"^{", "@nobody uses this text"},
}

// absents are values that no row has, by kind of field.
var absents = map[string]string{
	"UUID": absent, "String": "no-such-text", "Bytes32": strings.Repeat("0f", 32), "Int64": "-987654", "Time": "1", "JSON": "no-such-text",
	"FFStringArray": "no-such-text",
}

// filters tries each filter of a list: with a value of one of the items, which
// must select exactly the items that have it, and with one that none has. A field
// that no item has is asked for as such.
func (c *caller) filters(path string, all []any) {
	c.Helper()
	if len(all) == 0 {
		return
	}
	for _, field := range slices.Sorted(maps.Keys(c.fields())) {
		kind := c.fields()[field]
		if h, is := hidden[c.op.Filter+"."+field]; is {
			c.selects(path, field, all, h[0])
			c.selects(path, field, nil, h[1])
			continue
		}
		if kind == "Bool" {
			c.truth(path, field, all)
			continue
		}
		value, with := shown(all, field, kind)
		switch {
		case with != nil && kind == "JSON":
			c.selects(path, field, with, "@"+value)
		case with != nil:
			c.selects(path, field, with, "="+value)
			c.selects(path, strings.ToUpper(field), with, "="+value)
		case kind == "String" || kind == "FFStringArray":
			c.selects(path, field, all, "?", "") // NULL, or an empty text
		default:
			c.selects(path, field, all, "?")
		}
		c.selects(path, field, nil, "="+absents[kind])
	}
}

// shown is the first value that an item shows of a field, and all items with it.
// Of JSON it is a piece of the text, as the order of an object's fields does not
// show in a result that was decoded.
func shown(all []any, field, kind string) (value string, with []any) {
	for _, item := range all {
		v, there := flatten(item)[field]
		if !there || v == "" || kind == "JSON" && !strings.HasPrefix(v, "{") {
			continue
		}
		switch {
		case value != "":
		case kind == "JSON":
			value, _, _ = strings.Cut(strings.Trim(v, "{}"), ",")
		default:
			value = v
		}
		if v == value || kind == "JSON" && strings.Contains(v, value) {
			with = append(with, item)
		}
	}
	return value, with
}

// truth tries a boolean filter, which results leave out when false.
func (c *caller) truth(path, field string, all []any) {
	c.Helper()
	var yes, no []any
	for _, item := range all {
		if flatten(item)[field] == "true" {
			yes = append(yes, item)
		} else {
			no = append(no, item)
		}
	}
	c.selects(path, field, yes, "true")
	c.selects(path, field, no, "false")
	c.selects(path, field, no, "anything")
}

// selects expects a filter, of which any of its values may match, to select
// exactly some items.
func (c *caller) selects(path, field string, want []any, values ...string) {
	c.Helper()
	got, _ := c.ok(query(path, url.Values{field: values}.Encode()), "").([]any)
	if want == nil {
		want = []any{}
	}
	if !same(got, want) {
		c.Errorf("%s with %s=%q selects %d entries, want %d", path, field, values, len(got), len(want))
	}
}

// flatten gives the fields of a result as a filter names them, with their text:
// nested ones with dots, those of a message's header without its name.
func flatten(v any) map[string]string {
	flat := map[string]string{}
	flattenInto(flat, "", v)
	for name, text := range flat {
		if short, is := strings.CutPrefix(name, "header."); is {
			flat[short] = text
		}
	}
	return flat
}

func flattenInto(flat map[string]string, name string, v any) {
	switch v := v.(type) {
	case nil:
	case object:
		if name != "" {
			text, err := json.Marshal(v)
			if err == nil {
				flat[name] = string(text)
			}
			name += "."
		}
		for field, e := range v {
			flattenInto(flat, name+strings.ToLower(field), e)
		}
	case []any:
		var texts []string
		for _, e := range v {
			texts = append(texts, fmt.Sprint(e))
		}
		flat[name] = strings.Join(texts, ",")
	default:
		flat[name] = fmt.Sprint(v)
	}
}

func TestFlatten(t *testing.T) {
	t.Parallel()
	got := flatten(object{"header": object{"id": "a", "topics": []any{"x", "y"}}, "tx": object{"ID": json.Number("7")}, "none": nil})
	for name, want := range map[string]string{"id": "a", "topics": "x,y", "tx.id": "7"} {
		if got[name] != want {
			t.Errorf("%s is %q in %v", name, got[name], got)
		}
	}
	if _, there := got["none"]; there {
		t.Errorf("null shows up in %v", got)
	}
}
