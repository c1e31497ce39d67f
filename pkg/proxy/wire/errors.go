package wire

// Error is a message that is not what its protocol demands. It is comparable: a
// given fault is always the same value.
type Error struct {
	Status int    // to answer a request with; of a response that was read, 502
	Text   string // one plain sentence, ASCII, without a full stop
}

func (e *Error) Error() string { return e.Text }
