package main

import (
	"fmt"
	"io/fs"
	"slices"
	"strings"
)

// markdown renders the result: where and how it ran, and a table per suite.
func markdown(r result) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Measured %s on %d cores of %s, Linux %s; load average before the run %s.\n", r.When.Format("2006-01-02"),
		r.Machine.Cores, r.Machine.CPU, r.Machine.Kernel, r.Machine.LoadAverage)
	fmt.Fprintf(&b, "Median of %d rounds of %g s, each after %g s of warm-up; in parentheses the least and the most of the rounds.\n", r.Rounds, r.Seconds, r.WarmUpSeconds)
	if !r.Machine.Quiet() {
		b.WriteString("**The machine was not quiet when the run began: do not believe the figures, measure again.**\n")
	}
	writeVerdicts(&b, r.Verdicts)
	for _, s := range r.Suites {
		b.WriteString("\n")
		writeSummary(&b, r, s)
	}
	return b.String()
}

func writeSummary(b *strings.Builder, r result, s summary) {
	fmt.Fprintf(b, "### %s\n\n", s.Title)
	fmt.Fprintf(b, "All of the %d responses counted were %s.", s.Responses, s.Right)
	for _, skip := range r.Skipped {
		if skip.Suite == s.Suite {
			fmt.Fprintf(b, " **%s is skipped: %s.**", skip.Proxy, skip.Why)
		}
	}
	b.WriteString("\n\n")
	proxies := proxiesOf(s)
	writeFigures(b, s, proxies)
	writeRatios(b, s, proxies)
	b.WriteString("\n")
	for _, p := range proxies {
		if version, ok := r.Versions[p.name]; ok {
			fmt.Fprintf(b, "- %s: `%s`\n", p.title, version)
		}
	}
}

func writeFigures(b *strings.Builder, s summary, proxies []measured) {
	reference := s.Reference
	for _, p := range proxies {
		if p.name == s.Reference {
			reference = p.title
		}
	}
	fmt.Fprintf(b, "| workload | proxy | %s | ÷ %s |", s.Unit, reference)
	rule := "\n|---|---|---:|---:|"
	if s.Rate != "" {
		fmt.Fprintf(b, " %s | core busy | RSS MB | of it anonymous |", s.Rate)
		rule += "---:|---:|---:|---:|"
	}
	b.WriteString(rule + "\n")
	for _, f := range s.Figures {
		fmt.Fprintf(b, "| %s | %s | %s | %s |", f.Workload, f.Title, f.Value.Render(1), ratio(f, s.Reference))
		if s.Rate != "" {
			fmt.Fprintf(b, " %.0f | %.0f %% | %.1f | %.1f |", f.RequestsPerSecond.Median, 100*f.Busy.Median, f.RSS.Median/1e6, f.Anonymous.Median/1e6)
		}
		b.WriteString("\n")
	}
}

// writeRatios is a table of the subject's figures over those of each peer, if there are any.
func writeRatios(b *strings.Builder, s summary, proxies []measured) {
	var mine []figure
	for _, f := range s.Figures {
		if f.Proxy == s.Subject {
			mine = append(mine, f)
		}
	}
	peers := slices.DeleteFunc(slices.Clone(proxies), func(p measured) bool { return p.name == s.Subject || p.name == s.Baseline })
	if len(mine) == 0 || len(peers) == 0 {
		return
	}
	fmt.Fprintf(b, "\n| %s of %s |", s.Unit, mine[0].Title)
	for _, p := range peers {
		fmt.Fprintf(b, " ÷ %s |", p.title)
	}
	b.WriteString("\n|---|" + strings.Repeat("---:|", len(peers)) + "\n")
	for _, f := range mine {
		fmt.Fprintf(b, "| %s |", f.Workload)
		for _, p := range peers {
			fmt.Fprintf(b, " %s |", ratio(f, p.name))
		}
		b.WriteString("\n")
	}
}

// measured is a proxy of a summary.
type measured struct{ name, title string }

// proxiesOf are those that were measured, in the order of the table.
func proxiesOf(s summary) []measured {
	var all []measured
	for _, f := range s.Figures {
		if p := (measured{f.Proxy, f.Title}); !slices.Contains(all, p) {
			all = append(all, p)
		}
	}
	return all
}

// ratio is a dash if the reference was not measured.
func ratio(f figure, reference string) string {
	r, ok := f.Ratios[reference]
	if !ok {
		return "–"
	}
	return r.Render(2)
}

// configurations shows how each program was started: as the templates are, since
// ports and folders differ from run to run. What several suites start is shown once.
func configurations(chosen []suite) (string, error) {
	var started []*startedProgram
	add := func(suite, title string, p program) {
		key := strings.Join(append([]string{p.config}, p.env...), " ")
		for _, s := range started {
			if s.key == key {
				if s.suite != suite && !slices.Contains(s.also, suite) {
					s.also = append(s.also, suite)
				}
				return
			}
		}
		started = append(started, &startedProgram{program: p, key: key, suite: suite, title: title})
	}
	for _, s := range chosen {
		add(s.title, "the backend of all", s.backend)
		for _, p := range s.proxies {
			for i, one := range p.chain {
				title := p.title
				if len(p.chain) > 1 {
					title += fmt.Sprintf(", %d of %d", i+1, len(p.chain))
				}
				add(s.title, title, one)
			}
		}
	}
	var b strings.Builder
	b.WriteString("### Configurations\n\nAs they were measured; `{{…}}` is filled in by the run with free ports and a temporary folder. " +
		"What several suites start alike is shown with the first, which names the others.\n")
	for _, s := range started {
		if err := s.write(&b); err != nil {
			return "", err
		}
	}
	return b.String(), nil
}

// startedProgram is a program as suites start it.
type startedProgram struct {
	program
	key          string // its configuration and environment
	suite, title string
	also         []string // titles of further suites
}

func (s *startedProgram) write(b *strings.Builder) error {
	text, err := fs.ReadFile(configs, "configs/"+s.config)
	if err != nil {
		return err
	}
	command := strings.Join(append(append(append([]string(nil), s.env...), s.binary), s.args...), " ")
	command = strings.ReplaceAll(command, "{config}", s.file())
	language := s.config[strings.LastIndexByte(s.config, '.')+1:]
	title := s.suite + ", " + s.title
	if len(s.also) > 0 {
		title += " (and of " + strings.Join(s.also, "; ") + ")"
	}
	fmt.Fprintf(b, "\n<details><summary>%s: <code>%s</code></summary>\n\n```%s\n%s```\n\n</details>\n", title, command, language, text)
	return nil
}
