package call

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	sagav1 "github.com/fairlead-mesh/fairlead/api/proto/saga/v1"
	"github.com/fairlead-mesh/fairlead/pkg/breaker"
	"github.com/fairlead-mesh/fairlead/pkg/saga"
	"github.com/fairlead-mesh/fairlead/pkg/saga/coordinator"
)

// A call over gRPC is one message each way, with five bytes before it: whether it is compressed, and its length
// (https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md). It goes over the same connections as those of HTTP/2, and so nothing repeats it but
// what they may, unlike grpc-go's calls.
const (
	grpcMethod = "saga.v1.Participant/Call"
	grpcPrefix = 5
	// maxMessage bounds a message that is read: a result, and what is around it. What is longer is read away.
	maxMessage = saga.MaxResultBytes + 1<<10
)

// newGRPCRequest is newRequest of a call over gRPC.
func newGRPCRequest(ctx context.Context, r *coordinator.Request) (*http.Request, error) {
	q := &sagav1.CallRequest{
		Saga: r.Saga, Step: r.Step, Operation: r.Call.GRPC, Kind: sagav1.CallRequest_ACTION, Attempt: int32(r.Attempt), Fence: r.Fence,
		IdempotencyKey: r.Key, Body: r.Call.Body,
	}
	if r.Undo {
		q.Kind = sagav1.CallRequest_COMPENSATE
	}
	message, err := proto.MarshalOptions{}.MarshalAppend(make([]byte, grpcPrefix), q)
	if err != nil {
		return nil, err
	}
	binary.BigEndian.PutUint32(message[1:], uint32(len(message)-grpcPrefix))
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://mesh/"+grpcMethod, once(message))
	if err != nil {
		return nil, err
	}
	request.ContentLength = -1 // which would be metadata
	request.Header.Set("Content-Type", "application/grpc")
	request.Header.Set("Te", "trailers")
	if deadline, ok := ctx.Deadline(); ok {
		request.Header.Set("Grpc-Timeout", strconv.FormatInt(max(time.Until(deadline).Milliseconds(), 1), 10)+"m")
	}
	return request, nil
}

// readGRPC is readHTTP of a call over gRPC.
func readGRPC(call *saga.Call, response *http.Response, sidecar bool) (a answer) {
	a.status = response.StatusCode
	message, broke := readMessage(response.Body)
	code, said := grpcStatus(response)
	if broke != nil && code == "OK" || code == "" {
		if broke == nil {
			broke = errors.New("the answer has no status of gRPC")
		}
		a.code = "UNKNOWN"
		a.outcome = saga.Outcome{Answer: saga.AnswerUnknown, Text: broke.Error()}
		a.broke = broke
		return a
	}
	a.code, a.verdict = code, judgeGRPC(code, response)
	if code == "DEADLINE_EXCEEDED" {
		a.broke = context.DeadlineExceeded // as the instance, or who is before it, has noticed first
	}
	a.outcome.Answer = call.GRPCAnswer(code)
	answered := new(sagav1.CallResponse)
	switch {
	case sidecar && neverLeft(response.Header.Get("Fairlead-Reason")):
		a.outcome.Answer = saga.AnswerNotRun
	case code == "OK" && message != nil:
		if err := proto.Unmarshal(message, answered); err != nil {
			a.outcome = saga.Outcome{Answer: saga.AnswerUnknown, Text: "the answer is no saga.v1.CallResponse: " + err.Error()}
			return a
		}
		if answered.GetPending() {
			a.outcome.Answer = saga.AnswerPending
		}
	}
	if a.outcome.Answer != saga.AnswerDone {
		a.outcome.Text = code
		if line, _, _ := strings.Cut(said, "\n"); line != "" {
			a.outcome.Text += ": " + line
		}
		a.outcome.After = asked(pushback(response), time.Millisecond)
		return a
	}
	if result := answered.GetResult(); saga.IsResult(result) {
		a.outcome.Result = result
	}
	return a
}

// readMessage reads an answer to its end, behind which its status is, and returns its message; nil: that is too long, and of no result that would be
// kept. An answer without one is none: its status alone may say more.
func readMessage(body io.Reader) (message []byte, err error) {
	var prefix [grpcPrefix]byte
	if _, err := io.ReadFull(body, prefix[:]); err != nil {
		return nil, fmt.Errorf("the answer has no message: %w", err)
	}
	if prefix[0] != 0 {
		return nil, errors.New("the answer is compressed, which it was not asked to be")
	}
	length := int64(binary.BigEndian.Uint32(prefix[1:]))
	if length <= maxMessage {
		message = make([]byte, length)
		if _, err := io.ReadFull(body, message); err != nil {
			return nil, fmt.Errorf("the answer breaks off: %w", err)
		}
		length = 0
	}
	more, err := io.Copy(io.Discard, body)
	switch {
	case err != nil:
		return nil, fmt.Errorf("the answer breaks off: %w", err)
	case more != length:
		return nil, errors.New("the answer is not one message")
	}
	return message, nil
}

// grpcStatus returns the name of the status of an answer that was read, and the message that it has; "": there is none. Of an answer without, its
// status of HTTP stands for one (https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md).
func grpcStatus(response *http.Response) (code, message string) {
	fields := response.Trailer
	if fields.Get("Grpc-Status") == "" {
		fields = response.Header // there is nothing but a status
	}
	if s := fields.Get("Grpc-Status"); s != "" {
		number, err := strconv.Atoi(s)
		if err != nil {
			number = -1
		}
		message = fields.Get("Grpc-Message")
		if decoded, err := url.PathUnescape(message); err == nil {
			message = decoded
		}
		return saga.GRPCCode(number), strings.ToValidUTF8(message, "")
	}
	message = strconv.Itoa(response.StatusCode) + " " + http.StatusText(response.StatusCode)
	switch response.StatusCode {
	case http.StatusOK:
		return "", ""
	case http.StatusBadRequest:
		return "INTERNAL", message
	case http.StatusUnauthorized:
		return "UNAUTHENTICATED", message
	case http.StatusForbidden:
		return "PERMISSION_DENIED", message
	case http.StatusNotFound:
		return "UNIMPLEMENTED", message
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return "UNAVAILABLE", message
	}
	return "UNKNOWN", message
}

// judgeGRPC is judge of a status of gRPC.
func judgeGRPC(code string, response *http.Response) breaker.Outcome {
	switch code {
	case "OK":
		return breaker.Success
	case "UNAVAILABLE":
		if pushback(response) != "" {
			return breaker.Ignored // asks to come back later
		}
		return breaker.Failure
	case "UNKNOWN", "INTERNAL", "DATA_LOSS":
		return breaker.Failure
	}
	return breaker.Ignored // about the request, or about who sent it
}

// pushback is how many milliseconds the participant asks to be left alone; "": it does not say (https://github.com/grpc/proposal/blob/master/A6-client-retries.md).
func pushback(response *http.Response) string {
	const name = "Grpc-Retry-Pushback-Ms"
	if v := response.Trailer.Get(name); v != "" {
		return v
	}
	return response.Header.Get(name)
}
