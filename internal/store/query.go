package store

import (
	"fmt"
	"math"
	"math/big"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/parley-node/parley/internal/errs"
)

// Kind is how a field's values compare and which operators make sense.
type Kind uint8

const (
	KindText   Kind = iota
	KindUUID        // text; one that is no UUID matches nothing
	KindHash        // text, 64 lower-case hexadecimal digits
	KindTime        // RFC 3339, or seconds, milliseconds or nanoseconds
	KindInt         // 64 bits
	KindBigInt      // any integer, in the column as SortableInt
	KindBool        // "true" in any case; everything else is false
	KindJSON        // text
	KindList        // text, comma-joined
)

// IsText reports whether the text operators apply.
func (k Kind) IsText() bool {
	switch k {
	case KindText, KindUUID, KindHash, KindJSON, KindList:
		return true
	}
	return false
}

// Field is one thing a collection can be filtered and sorted by.
type Field struct {
	Name   string // lower case, as in the query
	Kind   Kind
	column string // "" if nothing stores it: then it is always NULL
}

// Collection describes one list of the API: what it can be filtered by, and the
// table that it comes from.
type Collection struct {
	Name   string // plural, for people
	One    string // singular, for error texts
	Fields []Field

	table  string
	serial string // column that ascends with insertion
	key    string // column that Get looks up
	order  string // default order; "" means newest first by serial
}

// Field returns a field by its name in any case.
func (c *Collection) Field(name string) (Field, bool) {
	name = strings.ToLower(name)
	i := slices.IndexFunc(c.Fields, func(f Field) bool { return f.Name == name })
	if i < 0 {
		return Field{}, false
	}
	return c.Fields[i], true
}

// time returns the field that says when a row came to be; no row is without.
func (c *Collection) time() (f Field, timed bool) {
	if f, timed = c.Field("created"); !timed {
		f, timed = c.Field("timestamp")
	}
	return f, timed
}

// Limits bound what one query may ask for.
type Limits struct {
	DefaultLimit uint64 // rows, where the query does not say
	MaxLimit     uint64
	MaxSkip      uint64
}

// DefaultLimits are those that existing clients expect.
var DefaultLimits = Limits{DefaultLimit: 25, MaxLimit: 1000, MaxSkip: 1000}

// Query is a parsed query of one collection. The zero value lists everything.
type Query struct {
	Skip  uint64
	Limit uint64 // 0 means no limit
	Count bool   // count all matching rows, too

	groups []group
	sort   []sortKey
}

// group is what one field's values ask for, joined by AND or OR.
type group struct {
	and        bool
	conditions []condition
}

type operator string

const (
	opEqual        operator = "="
	opContains     operator = "@"
	opStartsWith   operator = "^"
	opEndsWith     operator = "$"
	opLess         operator = "<"
	opLessEqual    operator = "<="
	opGreater      operator = ">"
	opGreaterEqual operator = ">="
)

func (o operator) orders() bool { return o[0] == '<' || o[0] == '>' }
func (o operator) isText() bool { return o == opContains || o == opStartsWith || o == opEndsWith }

// condition is one comparison of a field.
type condition struct {
	field  Field
	op     operator
	negate bool
	fold   bool // without regard to case
	null   bool // compare with NULL
	value  any
}

type sortKey struct {
	column     string
	descending bool
}

// Bounds that keep a query within what a database's parser accepts.
const (
	maxConditions = 500
	maxMatch      = 8192 // bytes of one value
)

// ParseQuery reads a query string. The syntax of a filter is
//
//	field=[modifiers][operator]value
//
// with operators = (the default), @ contains, ^ starts with, $ ends with, <
// <= > >= (also << and >>) and modifiers ! not, : without regard to case, ? an
// empty value means NULL, [ all of this field's values, ] any of them (the
// default). Different fields must all match. Control parameters are sort,
// descending, ascending, skip, limit and count; parameters that are neither are
// ignored. Errors have status 400 and the codes FF00143, FF00144, FF00145,
// FF00191, FF00192 or FF00193.
func ParseQuery(c *Collection, v url.Values, limits Limits) (Query, error) {
	params := foldNames(v)
	q := Query{Limit: limits.DefaultLimit, Count: flag(params["count"])}
	var err error
	if values := params["skip"]; len(values) > 0 {
		if q.Skip, err = amount("FF00191", "skip", values[0], limits.MaxSkip); err != nil {
			return Query{}, err
		}
	}
	if values := params["limit"]; len(values) > 0 {
		if q.Limit, err = amount("FF00192", "limit", values[0], limits.MaxLimit); err != nil {
			return Query{}, err
		}
	}
	q.sort = parseSort(c, params)
	total := 0
	for _, f := range c.Fields {
		values := params[f.Name]
		if len(values) == 0 {
			continue
		}
		if total += len(values); total > maxConditions {
			return Query{}, errs.BadRequest(errs.CodeBadValue, "The query has more than %d values; ask for fewer at a time", maxConditions)
		}
		slices.Sort(values)
		var g group
		for _, text := range values {
			one, and, err := parseCondition(f, text)
			if err != nil {
				return Query{}, err
			}
			g.and = g.and || and
			g.conditions = append(g.conditions, one)
		}
		q.groups = append(q.groups, g)
	}
	return q, nil
}

// foldNames lowers the names of parameters and joins those that become equal.
func foldNames(v url.Values) map[string][]string {
	params := make(map[string][]string, len(v))
	for name, values := range v {
		name = strings.ToLower(name)
		params[name] = append(params[name], values...)
	}
	return params
}

// flag is true for a parameter that is there without a value or as "true".
func flag(values []string) bool {
	return len(values) > 0 && (values[0] == "" || strings.EqualFold(values[0], "true"))
}

// amount reads skip or limit. What is not a number counts as 0: clients send it.
func amount(code, name, text string, most uint64) (uint64, error) {
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil && n != math.MaxUint64 { // ParseUint's answer for what is too large
		return 0, nil
	}
	if n > most {
		return 0, errs.BadRequest(code, "The %s %s is above the maximum of %d; page with a smaller one", name, text, most)
	}
	return n, nil
}

func parseSort(c *Collection, params map[string][]string) []sortKey {
	descending, ascending := flag(params["descending"]), flag(params["ascending"])
	var keys []sortKey
	for _, text := range params["sort"] {
		for name := range strings.SplitSeq(text, ",") {
			name, minus := strings.CutPrefix(name, "-")
			i := slices.IndexFunc(c.Fields, func(f Field) bool { return f.Name == name && f.column != "" })
			if i < 0 {
				continue
			}
			key := sortKey{c.Fields[i].column, descending || minus && !ascending}
			if !slices.ContainsFunc(keys, func(k sortKey) bool { return k.column == key.column }) {
				keys = append(keys, key)
			}
		}
	}
	return keys
}

// parseCondition reads one value of a field; and reports the modifier [.
func parseCondition(f Field, text string) (one condition, and bool, err error) {
	one = condition{field: f, op: opEqual}
	var op operator
	match := ""
	var emptyIsNull bool
scan:
	for i := 0; i < len(text); i++ {
		match = text[i+1:]
		switch ch := text[i]; {
		case ch == '!':
			one.negate = true
		case ch == ':':
			one.fold = true
		case ch == '?':
			emptyIsNull = true
		case ch == '[':
			and = true
		case ch == ']':
			and = false
		case op == "" && strings.IndexByte("=@^$", ch) >= 0:
			op = operator(ch)
			break scan
		case op == "" && (ch == '<' || ch == '>'):
			op = operator(ch) // its second character may follow
		case op == operator(ch): // << and >>
			break scan
		case op != "" && ch == '=':
			op += "="
			break scan
		default:
			match = text[i:]
			break scan
		}
	}
	if op != "" {
		one.op = op
	}
	if one.op.orders() && (one.negate || one.fold || emptyIsNull) {
		return one, and, errs.BadRequest("FF00193", "Filter %s=%s: the operator %s takes none of the modifiers ! : ?", f.Name, shorten(text), one.op)
	}
	if one.fold && !f.Kind.IsText() || one.op.isText() && !f.Kind.IsText() {
		return one, and, errs.BadRequest(errs.CodeTextOperator, "Filter %s=%s: the field is not text; compare it with = < <= > or >=", f.Name, shorten(text))
	}
	if emptyIsNull && match == "" {
		if one.op.isText() {
			return one, and, errs.BadRequest(errs.CodeNullOperator, "Filter %s=%s: nothing can be part of NULL; use ? or !? alone", f.Name, shorten(text))
		}
		one.null = true
		return one, and, nil
	}
	one.value, err = f.Kind.parse(match)
	if err != nil {
		return one, and, errs.Wrap(err, errs.CodeBadValue, 400, "Filter %s=%s", f.Name, shorten(text))
	}
	return one, and, nil
}

// shorten keeps a value in an error text readable.
func shorten(text string) string {
	const most = 100
	if len(text) <= most {
		return strings.ToValidUTF8(text, "?")
	}
	return strings.ToValidUTF8(text[:most], "?") + "…"
}

// parse turns the text of a match into the argument it is compared with.
func (k Kind) parse(match string) (any, error) {
	if len(match) > maxMatch {
		return nil, fmt.Errorf("the value has %d bytes, more than the %d that can be searched for", len(match), maxMatch)
	}
	switch k {
	case KindTime:
		t, err := ParseTime(match)
		return int64(t), err
	case KindInt:
		n, err := strconv.ParseInt(match, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("%q is not a whole number of 64 bits", shorten(match))
		}
		return n, nil
	case KindBigInt:
		n, ok := new(big.Int).SetString(match, 10)
		if !ok {
			return nil, fmt.Errorf("%q is not a whole number", shorten(match))
		}
		return SortableInt(n)
	case KindBool:
		return strings.EqualFold(match, "true"), nil
	}
	return match, nil
}

// Where adds that a field must equal one of some values, which have the types
// of the field's column. It serves the paths that list part of a collection,
// such as the events of a message.
func (q *Query) Where(c *Collection, field string, values ...any) error {
	f, ok := c.Field(field)
	if !ok {
		return fmt.Errorf("%s have no field %q", c.Name, field)
	}
	var g group
	for _, v := range values {
		g.conditions = append(g.conditions, condition{field: f, op: opEqual, value: v})
	}
	q.groups = append(q.groups, g)
	return nil
}

// Contains adds that a text field must contain a text.
func (q *Query) Contains(c *Collection, field, text string) error {
	f, ok := c.Field(field)
	if !ok || !f.Kind.IsText() {
		return fmt.Errorf("%s have no text field %q", c.Name, field)
	}
	q.groups = append(q.groups, group{conditions: []condition{{field: f, op: opContains, value: text}}})
	return nil
}

// sqlText is a statement under construction.
type sqlText struct {
	strings.Builder
	args []any
}

func (s *sqlText) arg(v any) {
	s.args = append(s.args, v)
	s.WriteByte('$')
	s.WriteString(strconv.Itoa(len(s.args)))
}

// where writes the WHERE clause of a query; an empty namespace means all.
func (q *Query) where(s *sqlText, namespace string) {
	sep := " WHERE "
	if namespace != "" {
		s.WriteString(sep + "namespace = ")
		s.arg(namespace)
		sep = " AND "
	}
	for _, g := range q.groups {
		s.WriteString(sep)
		sep = " AND "
		g.write(s)
	}
}

func (g *group) write(s *sqlText) {
	join := " OR "
	switch {
	case len(g.conditions) == 0:
		s.WriteString("1 = 0") // one of no values
		return
	case g.and:
		join = " AND "
	case len(g.conditions) > 1 && !slices.ContainsFunc(g.conditions, func(c condition) bool { return !c.plain() }):
		s.WriteString(g.conditions[0].field.column + " IN (")
		for i, c := range g.conditions {
			if i > 0 {
				s.WriteByte(',')
			}
			s.arg(c.value)
		}
		s.WriteByte(')')
		return
	}
	s.WriteByte('(')
	for i := range g.conditions {
		if i > 0 {
			s.WriteString(join)
		}
		g.conditions[i].write(s)
	}
	s.WriteByte(')')
}

// plain reports a simple equality, which an IN list can hold.
func (c condition) plain() bool {
	return c.op == opEqual && !c.negate && !c.fold && !c.null && c.field.column != ""
}

func (c *condition) write(s *sqlText) {
	column := c.field.column
	switch {
	case column == "": // always NULL, which equals nothing but NULL
		if c.null && !c.negate {
			s.WriteString("1 = 1")
		} else {
			s.WriteString("1 = 0")
		}
		return
	case c.null && c.negate:
		s.WriteString(column + " IS NOT NULL")
		return
	case c.null:
		s.WriteString(column + " IS NULL")
		return
	}
	if c.fold {
		column = "lower(" + column + ")"
	}
	arg := func(v any) {
		if c.fold {
			s.WriteString("lower(")
			s.arg(v)
			s.WriteByte(')')
		} else {
			s.arg(v)
		}
	}
	if c.op.isText() {
		if c.negate {
			s.WriteString(column + " NOT LIKE ")
		} else {
			s.WriteString(column + " LIKE ")
		}
		arg(c.pattern())
		s.WriteString(` ESCAPE '\'`)
		return
	}
	op := string(c.op)
	if c.negate {
		op = "<>"
	}
	s.WriteString(column + " " + op + " ")
	arg(c.value)
}

// likeEscaper makes a text match itself in a LIKE pattern.
var likeEscaper = strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`)

func (c *condition) pattern() string {
	text, _ := c.value.(string) // text operators are refused on other kinds
	text = likeEscaper.Replace(text)
	if c.op != opStartsWith {
		text = "%" + text
	}
	if c.op != opEndsWith {
		text += "%"
	}
	return text
}

// page writes ORDER BY, LIMIT and OFFSET.
func (q *Query) page(s *sqlText, c *Collection) {
	s.WriteString(" ORDER BY ")
	switch {
	case len(q.sort) > 0:
		last := false
		for _, k := range q.sort {
			s.WriteString(k.column)
			if last = k.descending; last {
				s.WriteString(" DESC")
			}
			// Where NULL can be, it comes first, as in SQLite. A column without
			// gets no clause: with one, PostgreSQL would not walk its index.
			switch at, _ := c.time(); {
			case k.column == c.serial || k.column == at.column:
			case k.descending:
				s.WriteString(" NULLS LAST")
			default:
				s.WriteString(" NULLS FIRST")
			}
			s.WriteString(", ")
		}
		s.WriteString(c.serial) // equal rows keep their order from page to page
		if last {
			s.WriteString(" DESC")
		}
	case c.order != "":
		s.WriteString(c.order)
	default:
		s.WriteString(c.serial + " DESC")
	}
	if q.Limit == 0 && q.Skip == 0 {
		return
	}
	limit := int64(math.MaxInt64)
	if q.Limit > 0 && q.Limit < math.MaxInt64 {
		limit = int64(q.Limit)
	}
	s.WriteString(" LIMIT ")
	s.arg(limit)
	if q.Skip > 0 {
		s.WriteString(" OFFSET ")
		s.arg(int64(min(q.Skip, math.MaxInt64)))
	}
}
