package flags

import (
	"runtime/debug"
	"strings"
)

// Version returns what the Go toolchain recorded of the build, in one line:
// the module's version, the commit, whether files differ from it, and Go's own
// version. It is "unknown" in a binary built without modules.
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	return describe(info)
}

// shortCommit is how much of a commit's hash is shown.
const shortCommit = 12

func describe(info *debug.BuildInfo) string {
	details := []string{}
	settings := map[string]string{}
	for _, s := range info.Settings {
		settings[s.Key] = s.Value
	}
	if commit := settings["vcs.revision"]; commit != "" {
		details = append(details, "commit "+commit[:min(len(commit), shortCommit)])
	}
	if settings["vcs.modified"] == "true" {
		details = append(details, "modified")
	}
	details = append(details, info.GoVersion)
	version := info.Main.Version
	if version == "" {
		version = "(devel)"
	}
	return version + " (" + strings.Join(details, ", ") + ")"
}
