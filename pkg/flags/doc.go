// Package flags is the one way in which the binaries read their settings.
//
// A setting is a kebab-case flag of a cobra command. Its environment variable
// is FAIRLEAD_ and the flag's name in capitals with underscores, so that
// --grpc-addr is FAIRLEAD_GRPC_ADDR, in every binary and subcommand alike. The
// flag wins over the variable, the variable over the default. An empty variable
// counts as not set, since that is what deployment tools make of a blank. A
// flag that may be repeated takes its values separated by commas, in the
// variable and on the command line.
//
// [Execute] runs a command: it applies the environment, prints help that names
// each flag's default and variable, and turns an error into one message and an
// exit code. [Address], [ListenAddress], [KeyValues], [LogLevel] and [OneOf]
// are values whose errors say what is wrong and how to write it.
//
// The package knows no setting by name and reads no file. It has no goroutine.
package flags
