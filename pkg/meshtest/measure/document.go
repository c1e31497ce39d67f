package measure

import (
	"errors"
	"fmt"
	"os"
	"strings"
)

// endMark is the line behind what is written.
const endMark = "<!-- to here -->"

// beginMark is the line before what a command writes.
func beginMark(command string) string { return "<!-- " + command + " writes from here -->" }

// UpdateDocument puts the text between the marks of a document that are the command's: the lines
// "<!-- COMMAND writes from here -->" and "<!-- to here -->".
func UpdateDocument(path, command, text string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	updated, err := splice(string(data), command, text)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return os.WriteFile(path, []byte(updated), 0o644)
}

// splice replaces what is between the marks, and leaves the rest as it is.
func splice(document, command, text string) (string, error) {
	before, rest, ok := strings.Cut(document, beginMark(command)+"\n")
	if !ok {
		return "", errors.New("no line " + beginMark(command))
	}
	_, after, ok := strings.Cut(rest, endMark)
	if !ok {
		return "", errors.New("no line " + endMark)
	}
	return before + beginMark(command) + "\n" + text + endMark + after, nil
}
