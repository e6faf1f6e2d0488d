package smtp

import "sync"

const (
	manyRefused = 3      // recipients in a row who show that a refusal is not theirs
	maxRefused  = 10_000 // recipients remembered
)

// refusals are the recipients for whom the server gave one reply since it last
// accepted a message. Several of them in a row show that the reply is about the
// server or the sender, whatever its code.
type refusals struct {
	mu         sync.Mutex
	reply      reply
	recipients map[string]bool
	blameAt    int // at how many recipients a reply about recipients blames the server next
}

type reply struct {
	stage    Stage
	code     int
	enhanced string
}

func (r *refusals) accepted() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.recipients = nil
}

// judge says whose a failure is that the reply alone takes to be e.Fault. It
// blames the server at most once in a row for each recipient: a message that
// meets the same reply again must not keep others from being sent. Nor must many
// recipients who are all wrong: a reply about them blames the server only when
// there are twice as many.
func (r *refusals) judge(e *Error, to string) Fault {
	if !e.Stage.namesRecipient() || e.Code/100 != 5 && e.Fault != OfServer {
		return e.Fault
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if said := (reply{e.Stage, e.Code, e.Enhanced}); r.recipients == nil || said != r.reply || len(r.recipients) == maxRefused {
		r.reply, r.recipients, r.blameAt = said, make(map[string]bool), manyRefused
	}
	again := r.recipients[to]
	r.recipients[to] = true
	n := len(r.recipients)
	switch {
	case e.Fault != OfServer && n < manyRefused:
		return e.Fault
	case again, e.Fault == OfMessage && n < r.blameAt:
		return Passing
	}
	r.blameAt = 2 * n
	return OfServer
}
