package wire

// Error is a message that is not what its protocol demands. It is comparable: a
// given fault is always the same value.
type Error struct {
	Status int    // to answer a request with: 400, 414, 431, 501 or 505
	Text   string // one plain sentence, ASCII, without a full stop
}

func (e *Error) Error() string { return e.Text }
