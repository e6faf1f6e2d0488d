package smtp

import (
	"net/textproto"
	"strconv"
	"strings"
)

// readReply reads a reply of one or more lines (RFC 5321, 4.2). Its first digit
// must be want, unless that is 0: no client has to know more of a code (4.3.2).
//
// It is textproto's ReadResponse for replies without text, which are allowed.
func (s *session) readReply(want int) (code int, text string, err error) {
	var lines []string
	for last := false; !last; {
		line, err := s.text.ReadLine()
		if err != nil {
			return 0, "", err
		}
		n, rest, final := cutCode(line)
		switch {
		case code == 0 && n == 0:
			return 0, "", textproto.ProtocolError("not a reply: " + line)
		case code == 0 || n == code:
			code, last = n, final
			lines = append(lines, rest)
		default: // not quite a line of this reply
			lines = append(lines, line)
		}
	}
	text = strings.Join(lines, "\n")
	if want != 0 && code/100 != want {
		return 0, "", &textproto.Error{Code: code, Msg: text}
	}
	return code, text, nil
}

// cutCode takes a line of a reply apart. The code is 0 if there is none.
func cutCode(line string) (code int, text string, last bool) {
	digits, rest := line[:min(3, len(line))], line[min(3, len(line)):]
	code, err := strconv.Atoi(digits)
	if err != nil || code < 100 || rest != "" && !strings.ContainsAny(rest[:1], " -\t") {
		return 0, line, false
	}
	if rest == "" {
		return code, "", true
	}
	return code, rest[1:], rest[0] != '-'
}
