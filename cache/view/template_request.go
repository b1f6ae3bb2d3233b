package view

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"text/template"
	"text/template/parse"

	"github.com/goccy/go-yaml/ast"
)

// part is a piece of a request: one of a text that is made of a row, JSON as it
// stands, a list or an object.
type part struct {
	text    *template.Template
	raw     json.RawMessage
	list    []part
	members []namedPart
	object  bool
}

type namedPart struct {
	name string
	part part
}

// maxText bounds a text that is made of a row, in bytes; what a request travels in
// bounds it further.
const maxText = 1 << 20

// Request makes the body of the request of a row, which is a JSON object of the
// row's columns. Texts are escaped as JSON wants it, whatever a column says, so that no
// value of a row can become more than a part of the text that it stands in. Its errors
// quote nothing of the row.
func (t *Template) Request(row []byte) (json.RawMessage, error) {
	columns, err := columnsOf(row)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	if err := t.request.write(&b, columns); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// Sample is a request with a word in place of each text that is made of a row.
func (t *Template) Sample() json.RawMessage {
	var b bytes.Buffer
	_ = t.request.write(&b, nil) // without a row nothing is executed
	return b.Bytes()
}

// write appends the part; with no columns, as Sample has it.
func (p part) write(b *bytes.Buffer, columns map[string]any) error {
	switch {
	case p.text != nil && columns == nil:
		b.WriteString(`"text"`)
	case p.text != nil:
		var said bounded
		if err := p.text.Execute(&said, columns); err != nil {
			return withoutValues(err)
		}
		if strings.Contains(said.String(), nullMark) {
			return fmt.Errorf("%s writes a column that is NULL: have the query say something else, or ask with if or with", p.text.Name())
		}
		return appendJSON(b, said.String())
	case p.object:
		b.WriteByte('{')
		for i, m := range p.members {
			if i > 0 {
				b.WriteByte(',')
			}
			if err := appendJSON(b, m.name); err != nil {
				return err
			}
			b.WriteByte(':')
			if err := m.part.write(b, columns); err != nil {
				return err
			}
		}
		b.WriteByte('}')
	case p.raw != nil:
		b.Write(p.raw)
	default:
		b.WriteByte('[')
		for i, one := range p.list {
			if i > 0 {
				b.WriteByte(',')
			}
			if err := one.write(b, columns); err != nil {
				return err
			}
		}
		b.WriteByte(']')
	}
	return nil
}

// withoutValues keeps of an error of text/template where it was and what; the values of
// a row are in none of the library's sentences, but one that a function returns is.
func withoutValues(err error) error {
	if errors.Is(err, errTooLong) {
		return errTooLong
	}
	var at template.ExecError
	if !errors.As(err, &at) {
		return errors.New("the text cannot be made")
	}
	return errors.New(strings.TrimPrefix(at.Err.Error(), "template: "))
}

var errTooLong = fmt.Errorf("a text is longer than %d bytes", maxText)

// bounded is a buffer that takes so much and no more.
type bounded struct{ strings.Builder }

// Write implements io.Writer.
func (w *bounded) Write(p []byte) (int, error) {
	if w.Len()+len(p) > maxText {
		return 0, errTooLong
	}
	return w.Builder.Write(p)
}

func appendJSON(b *bytes.Buffer, text string) error {
	quoted, err := plainJSON(text)
	b.WriteString(quoted)
	return err
}

// plainJSON writes a value as JSON, with <, > and & as they are.
func plainJSON(value any) (string, error) {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(value); err != nil {
		return "", errors.New("json: the value cannot be written")
	}
	return strings.TrimSuffix(b.String(), "\n"), nil
}

// null is a column without a value. It is false to if and with, and may not be
// written: no text of PostgreSQL holds the mark that it leaves.
type null string

const nullMark = "\x00"

// String implements fmt.Stringer.
func (null) String() string { return nullMark }

// MarshalJSON implements json.Marshaler, for the function json.
func (null) MarshalJSON() ([]byte, error) { return []byte("null"), nil }

// columnsOf reads a row. Whole numbers are int64, and others as PostgreSQL writes them.
func columnsOf(row []byte) (map[string]any, error) {
	d := json.NewDecoder(bytes.NewReader(row))
	d.UseNumber()
	var columns map[string]any
	if err := d.Decode(&columns); err != nil || columns == nil {
		return nil, errors.New("the row is not a JSON object")
	}
	for name, value := range columns {
		columns[name] = valueOf(value)
	}
	return columns, nil
}

// valueOf returns a value of JSON as templates have it.
func valueOf(v any) any {
	switch v := v.(type) {
	case nil:
		return null("")
	case json.Number:
		if n, err := v.Int64(); err == nil {
			return n
		}
		return v
	case map[string]any:
		for name, one := range v {
			v[name] = valueOf(one)
		}
	case []any:
		for i, one := range v {
			v[i] = valueOf(one)
		}
	}
	return v
}

// body reads a request.
func (r *reader) body(what string, n ast.Node, t *Template) part {
	if _, ok := n.(ast.MapNode); !ok {
		r.faultf(tokenOf(n), "%s is %s; it must be a mapping, as the body of a chat completion", what, kindOf(n))
		return part{}
	}
	p := r.part(what, n, t)
	for _, m := range p.members {
		if m.name != "model" {
			continue
		}
		if m.part.raw == nil || json.Unmarshal(m.part.raw, &t.Model) != nil || t.Model == "" {
			r.faultf(tokenOf(n), "%s.model must be the plain name of a model", what)
		}
	}
	slices.Sort(t.Columns)
	t.Columns = slices.Compact(t.Columns)
	return p
}

// part reads a piece of a request.
func (r *reader) part(what string, node ast.Node, t *Template) part {
	switch n := node.(type) {
	case *ast.NullNode:
		return part{raw: json.RawMessage("null")}
	case *ast.BoolNode:
		return part{raw: json.RawMessage(strconv.FormatBool(n.Value))}
	case *ast.IntegerNode, *ast.FloatNode:
		number, ok := numberOf(n)
		if !ok {
			r.faultf(tokenOf(n), "%s is no number of JSON", what)
		}
		return part{raw: json.RawMessage(number)}
	case *ast.SequenceNode:
		p := part{}
		for i, one := range n.Values {
			p.list = append(p.list, r.part(fmt.Sprintf("%s[%d]", what, i), one, t))
		}
		return p
	case ast.MapNode:
		p := part{object: true}
		fields, _ := r.fields(what, node)
		for _, f := range fields {
			p.members = append(p.members, namedPart{f.name, r.part(what+"."+f.name, f.value, t)})
		}
		return p
	}
	return r.writing(what, node, t)
}

// writing reads a text: as it stands, or to be made of each row.
func (r *reader) writing(what string, n ast.Node, t *Template) part {
	raw, ok := plain(n)
	if !ok {
		r.faultf(tokenOf(n), "%s is %s; it must be text, a number, true, false, null, a list or a mapping", what, kindOf(n))
		return part{}
	}
	said, err := interpolate(raw, r.lookup)
	if err != nil {
		r.faultf(tokenOf(n), "%s: %v", what, err)
		return part{}
	}
	if !strings.Contains(said, "{{") {
		quoted, err := plainJSON(said)
		if err != nil || strings.Contains(said, nullMark) {
			r.faultf(tokenOf(n), "%s is not text", what)
		}
		return part{raw: json.RawMessage(quoted)}
	}
	made, err := template.New(what).Option("missingkey=error").Funcs(template.FuncMap{"json": plainJSON}).Parse(said)
	if err != nil {
		r.faultf(tokenOf(n), "%s", strings.TrimPrefix(err.Error(), "template: "))
		return part{}
	}
	t.Columns = append(t.Columns, columnsIn(made.Root, true)...)
	return part{text: made}
}

// columnsIn returns the columns that a template always names. Inside range and with the
// dot is another than the row (own is false), and the row is $.
func columnsIn(n parse.Node, own bool) []string {
	var all []string
	add := func(own bool, nodes ...parse.Node) {
		for _, one := range nodes {
			all = append(all, columnsIn(one, own)...)
		}
	}
	switch n := n.(type) {
	case *parse.ListNode:
		if n != nil {
			add(own, n.Nodes...)
		}
	case *parse.ActionNode:
		add(own, n.Pipe)
	case *parse.PipeNode:
		for _, c := range n.Cmds {
			add(own, c.Args...)
		}
	case *parse.FieldNode:
		if own {
			all = append(all, n.Ident[0])
		}
	case *parse.VariableNode:
		if n.Ident[0] == "$" && len(n.Ident) > 1 {
			all = append(all, n.Ident[1])
		}
	case *parse.ChainNode:
		add(own, n.Node)
	case *parse.IfNode:
		add(own, n.Pipe, n.List, n.ElseList)
	case *parse.RangeNode:
		add(own, n.Pipe, n.ElseList)
		add(false, n.List)
	case *parse.WithNode:
		add(own, n.Pipe, n.ElseList)
		add(false, n.List)
	case *parse.TemplateNode:
		if n.Pipe != nil {
			add(own, n.Pipe)
		}
	}
	return all
}
