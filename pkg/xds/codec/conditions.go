package codec

import (
	"regexp"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"

	"github.com/fairlead-mesh/fairlead/pkg/mesh"
)

// maxConditions bounds those of one route and kind.
const maxConditions = 64

func conditionsProto(f *faults, path string, m *routev3.RouteMatch, where []mesh.Condition) {
	for _, c := range where {
		switch c.Of {
		case mesh.OfField:
			m.Headers = append(m.Headers, headerProto(c))
		case mesh.OfParameter:
			one := &routev3.QueryParameterMatcher{Name: c.Name}
			if c.How == mesh.WherePresent {
				one.QueryParameterMatchSpecifier = &routev3.QueryParameterMatcher_PresentMatch{PresentMatch: !c.Invert}
			} else {
				one.QueryParameterMatchSpecifier = &routev3.QueryParameterMatcher_StringMatch{StringMatch: stringProto(c)}
			}
			if c.Invert && c.How != mesh.WherePresent || c.How == mesh.WhereRange || c.MissingIsEmpty {
				f.add(field(path, "query_parameters"), "of %q can be compared with a string only, and not inverted", clip(c.Name))
			}
			m.QueryParameters = append(m.QueryParameters, one)
		case mesh.OfPath:
			if m.GetPrefix() != "" || m.GetPath() != "" || c.How != mesh.WhereRegex {
				f.add(path, "has both an expression and a prefix or a path")
			}
			m.PathSpecifier = &routev3.RouteMatch_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: c.Value}}
		case mesh.OfGRPC:
			m.Grpc = &routev3.RouteMatch_GrpcRouteMatchOptions{}
		}
	}
}

func headerProto(c mesh.Condition) *routev3.HeaderMatcher {
	m := &routev3.HeaderMatcher{Name: c.Name, InvertMatch: c.Invert, TreatMissingHeaderAsEmpty: c.MissingIsEmpty}
	switch c.How {
	case mesh.WherePresent:
		m.HeaderMatchSpecifier = &routev3.HeaderMatcher_PresentMatch{PresentMatch: true}
	case mesh.WhereRange:
		m.HeaderMatchSpecifier = &routev3.HeaderMatcher_RangeMatch{RangeMatch: &typev3.Int64Range{Start: c.Low, End: c.High}}
	default:
		m.HeaderMatchSpecifier = &routev3.HeaderMatcher_StringMatch{StringMatch: stringProto(c)}
	}
	return m
}

func stringProto(c mesh.Condition) *matcherv3.StringMatcher {
	m := &matcherv3.StringMatcher{IgnoreCase: c.IgnoreCase}
	switch c.How {
	case mesh.WherePrefix:
		m.MatchPattern = &matcherv3.StringMatcher_Prefix{Prefix: c.Value}
	case mesh.WhereSuffix:
		m.MatchPattern = &matcherv3.StringMatcher_Suffix{Suffix: c.Value}
	case mesh.WhereContains:
		m.MatchPattern = &matcherv3.StringMatcher_Contains{Contains: c.Value}
	case mesh.WhereRegex:
		m.MatchPattern = &matcherv3.StringMatcher_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: c.Value}}
	default:
		m.MatchPattern = &matcherv3.StringMatcher_Exact{Exact: c.Value}
	}
	return m
}

// conditionsValue reads what a route asks for besides the path.
func conditionsValue(f *faults, path string, m *routev3.RouteMatch) (where []mesh.Condition) {
	headers, parameters := field(path, "headers"), field(path, "query_parameters")
	if n := len(m.GetHeaders()); n > maxConditions {
		f.add(headers, "are %d, more than %d", n, maxConditions)
		return nil
	}
	if n := len(m.GetQueryParameters()); n > maxConditions {
		f.add(parameters, "are %d, more than %d", n, maxConditions)
		return nil
	}
	for i, one := range m.GetHeaders() {
		where = append(where, headerValue(f, item(headers, i), one))
	}
	for i, one := range m.GetQueryParameters() {
		where = append(where, parameterValue(f, item(parameters, i), one))
	}
	if m.GetGrpc() != nil {
		where = append(where, mesh.Condition{Of: mesh.OfGRPC})
	}
	return where
}

func headerValue(f *faults, path string, m *routev3.HeaderMatcher) mesh.Condition {
	c := mesh.Condition{Name: m.GetName(), Invert: m.GetInvertMatch(), MissingIsEmpty: m.GetTreatMissingHeaderAsEmpty()}
	switch c.Name {
	case ":method", ":authority", ":path", ":scheme":
	default:
		checkFieldName(f, field(path, "name"), c.Name)
	}
	//nolint:staticcheck // what is deprecated, many files have
	switch by := m.GetHeaderMatchSpecifier().(type) {
	case nil:
	case *routev3.HeaderMatcher_PresentMatch:
		c.Invert = c.Invert != !by.PresentMatch
	case *routev3.HeaderMatcher_ExactMatch:
		c.How, c.Value = mesh.WhereExact, by.ExactMatch
	case *routev3.HeaderMatcher_PrefixMatch:
		c.How, c.Value = mesh.WherePrefix, by.PrefixMatch
	case *routev3.HeaderMatcher_SuffixMatch:
		c.How, c.Value = mesh.WhereSuffix, by.SuffixMatch
	case *routev3.HeaderMatcher_ContainsMatch:
		c.How, c.Value = mesh.WhereContains, by.ContainsMatch
	case *routev3.HeaderMatcher_SafeRegexMatch:
		c.How, c.Value = mesh.WhereRegex, regexValue(f, field(path, "safe_regex_match.regex"), by.SafeRegexMatch)
	case *routev3.HeaderMatcher_RangeMatch:
		c.How, c.Low, c.High = mesh.WhereRange, by.RangeMatch.GetStart(), by.RangeMatch.GetEnd()
		if c.Low >= c.High {
			f.add(field(path, "range_match"), "has nothing in it: start is %d, and end, which is not in it, %d", c.Low, c.High)
		}
	case *routev3.HeaderMatcher_StringMatch:
		stringValue(f, field(path, "string_match"), by.StringMatch, &c)
	}
	checkCompared(f, path, c)
	return c
}

func parameterValue(f *faults, path string, m *routev3.QueryParameterMatcher) mesh.Condition {
	c := mesh.Condition{Of: mesh.OfParameter, Name: m.GetName()}
	checkName(f, field(path, "name"), c.Name)
	switch by := m.GetQueryParameterMatchSpecifier().(type) {
	case *routev3.QueryParameterMatcher_PresentMatch:
		c.Invert = !by.PresentMatch
	case *routev3.QueryParameterMatcher_StringMatch:
		stringValue(f, field(path, "string_match"), by.StringMatch, &c)
	}
	checkCompared(f, path, c)
	return c
}

func stringValue(f *faults, path string, m *matcherv3.StringMatcher, c *mesh.Condition) {
	c.IgnoreCase = m.GetIgnoreCase()
	switch by := m.GetMatchPattern().(type) {
	case *matcherv3.StringMatcher_Exact:
		c.How, c.Value = mesh.WhereExact, by.Exact
	case *matcherv3.StringMatcher_Prefix:
		c.How, c.Value = mesh.WherePrefix, by.Prefix
	case *matcherv3.StringMatcher_Suffix:
		c.How, c.Value = mesh.WhereSuffix, by.Suffix
	case *matcherv3.StringMatcher_Contains:
		c.How, c.Value = mesh.WhereContains, by.Contains
	case *matcherv3.StringMatcher_SafeRegex:
		c.How, c.Value, c.IgnoreCase = mesh.WhereRegex, regexValue(f, field(path, "safe_regex.regex"), by.SafeRegex), false // as in Envoy
	default:
		f.add(path, "must have exact, prefix, suffix, contains or safe_regex")
	}
}

// checkCompared wants something to compare with, which may be nothing only if it is all there is.
func checkCompared(f *faults, path string, c mesh.Condition) {
	switch c.How {
	case mesh.WherePrefix, mesh.WhereSuffix, mesh.WhereContains:
		if c.Value == "" {
			f.add(path, "compares with the empty string: say present_match")
		}
	}
	if len(c.Value) > maxName {
		f.add(path, "compares with %d bytes, more than %d", len(c.Value), maxName)
	}
	checkText(f, path, c.Value)
}

// regexValue reads an expression in the syntax of RE2, which Go's are, but for \\C.
func regexValue(f *faults, path string, m *matcherv3.RegexMatcher) string {
	if m.GetRegex() == "" {
		f.add(path, "is empty, and so is met by nothing but that")
	} else if _, err := regexp.Compile(m.GetRegex()); err != nil {
		f.add(path, "%q is not an RE2: %v", clip(m.GetRegex()), err)
	}
	return m.GetRegex()
}
