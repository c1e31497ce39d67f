package saga

import (
	"encoding/json"
	"strconv"
	"time"
	"unicode/utf8"
)

// Answer is what a participant said of a call.
type Answer string

// The answers of a participant.
const (
	AnswerDone    Answer = "done"    // it has happened
	AnswerRefused Answer = "refused" // it has not, and will not
	AnswerUnknown Answer = "unknown" // it may have happened, or may yet
	AnswerPending Answer = "pending" // it goes on, and is to be asked for again
	// AnswerNotRun is of a call that never left this process: it has not happened, and may be tried again.
	AnswerNotRun Answer = "not_run"
)

// Outcome is what came of a call.
type Outcome struct {
	Answer Answer
	// Result is what the participant answered, JSON; nil: nothing, or nothing that is kept.
	Result json.RawMessage
	// Text says what went wrong, for people.
	Text string
	// After is how long the participant asks to be left alone, if the call comes again; 0: it does not say. It is heeded up to Retry.Max.
	After time.Duration
}

// IsResult reports whether what a participant answered is kept: JSON in UTF-8, of MaxResultBytes at the most.
func IsResult(b []byte) bool { return len(b) <= MaxResultBytes && json.Valid(b) && utf8.Valid(b) }

// HTTPAnswer returns what a status of HTTP means of a call that says nothing else: 2xx is done, but 202, as 425, is not yet; 408,
// 429 and 5xx are unknown, and so are 1xx and 3xx, which are no answers; 409, 422 and all other 4xx are refusals.
//
// 503 is unknown though a server may mean that it did nothing: one behind it may have.
func (c *Call) HTTPAnswer(status int) Answer {
	if a, ok := c.Statuses[strconv.Itoa(status)]; ok {
		return a
	}
	switch {
	case status == 202, status == 425:
		return AnswerPending
	case status >= 200 && status < 300:
		return AnswerDone
	case status == 408, status == 429:
		return AnswerUnknown
	case status >= 400 && status < 500:
		return AnswerRefused
	default:
		return AnswerUnknown
	}
}

// grpcCodes are the statuses of gRPC, by their numbers (https://github.com/grpc/grpc/blob/master/doc/statuscodes.md).
func grpcCodes() [17]string {
	return [17]string{
		"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED",
		"FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
	}
}

// GRPCCode returns the name of a status of gRPC; of a number that is none, UNKNOWN, as gRPC reads it.
func GRPCCode(number int) string {
	if codes := grpcCodes(); number >= 0 && number < len(codes) {
		return codes[number]
	}
	return "UNKNOWN"
}

// GRPCAnswer returns what a status of gRPC, by its name, means of a call: OK is done; what the participant, or its server, says of the request, and
// would say again, is a refusal; all others are unknown. Of OK, an answer may say that it is not yet.
//
// ABORTED is a refusal as gRPC defines it, "clients should retry at a higher level". UNAVAILABLE is unknown though a server may mean that it did
// nothing: it is also what a connection that broke is told by.
func (c *Call) GRPCAnswer(code string) Answer {
	if a, ok := c.Statuses[code]; ok {
		return a
	}
	switch code {
	case "OK":
		return AnswerDone
	case "INVALID_ARGUMENT", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED", "UNAUTHENTICATED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED":
		return AnswerRefused
	default:
		return AnswerUnknown
	}
}
