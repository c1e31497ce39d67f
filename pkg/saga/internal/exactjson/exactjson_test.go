package exactjson

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

type inner struct {
	A int             `json:"a,omitempty"`
	B json.RawMessage `json:"b"`
}

type outer struct {
	Name  string           `json:"name"`
	One   *inner           `json:"one"`
	Many  []inner          `json:"many"`
	Named map[string]inner `json:"named"`
}

func TestWhatCanBeReadInTwoWaysIsNotRead(t *testing.T) {
	for text, want := range map[string]string{
		`{"name":"x","name":"y"}`:            `field "name" is given twice`,
		`{"name":"x","n\u0061me":"y"}`:       `field "name" is given twice`,
		`{"Name":"x"}`:                       `unknown field "Name"`,
		`{"one":{"a":1,"a":1}}`:              `one: field "a" is given twice`,
		`{"many":[{},{"A":1}]}`:              `many[1]: unknown field "A"`,
		`{"named":{"x":{},"x":{}}}`:          `named: field "x" is given twice`,
		`{"named":{"x":{"c":1}}}`:            `named.x: unknown field "c"`,
		`{"name":"` + "\xff" + `"}`:          "no UTF-8",
		`{} {}`:                              "something behind it",
		`{}]`:                                "something behind it",
		`{}x`:                                "something behind it",
		`{"one":{"b":`:                       "unexpected EOF",
		`{"many":7}`:                         "cannot unmarshal number",
		`{"one":{"b":` + deep(20_000) + `}}`: "max depth",
		`[]`:                                 "cannot unmarshal array",
		`{"` + strings.Repeat("x", 1000) + `":1}`: "unknown field",
	} {
		if err := Unmarshal([]byte(text), new(outer)); err == nil || !strings.Contains(err.Error(), want) || len(err.Error()) > 200 {
			t.Errorf("%.80s: %v", text, err)
		}
	}
}

func deep(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }

func TestWhatIsRightIsReadAndBodiesAreTakenAsTheyAre(t *testing.T) {
	var v outer
	body := `{"a":1,"a":12345678901234567890,"A":` + deep(9000) + `}`
	if err := Unmarshal([]byte(` {"name":"x","one":{"a":1,"b":`+body+`},"many":null,"named":{"x":{"b":null},"X":{}}} `), &v); err != nil {
		t.Fatal(err)
	}
	if v.Name != "x" || string(v.One.B) != body || len(v.Named) != 2 {
		t.Error(v)
	}
	if err := Unmarshal([]byte("null"), &v); err != nil {
		t.Error(err)
	}
}

// What is read is what encoding/json reads, or nothing.
func FuzzUnmarshal(f *testing.F) {
	f.Add([]byte(`{"name":"x\"\\","one":{"a":1,"b":[{"b":"}]"},-1.5e3,true,null]},"many":[{"a":2} , {}],"named":{"\u0061":{},"b":null}}`))
	f.Add([]byte(`{"name":"x","n\u0061me":"y"}`))
	f.Add([]byte(" null "))
	f.Add([]byte(`{"named":{"a":{"b":1},"a":{"b":2}},"many":[]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var got, want outer
		err := Unmarshal(text, &got)
		if err == nil && json.Unmarshal(text, &want) != nil {
			t.Errorf("%q is no JSON", text)
		}
		if err == nil && !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %v, not %v", text, got, want)
		}
		strict := json.NewDecoder(bytes.NewReader(text))
		strict.DisallowUnknownFields()
		if err == nil && strict.Decode(&want) != nil {
			t.Errorf("%q has a field that there is not", text)
		}
	})
}
