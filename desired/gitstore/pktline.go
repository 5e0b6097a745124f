// SPDX-License-Identifier: Apache-2.0

package gitstore

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"
)

// maxPkt is the largest pkt-line, with its four digits of length.
const maxPkt = 65520

// appendPkt appends a pkt-line.
func appendPkt(dst []byte, text string) []byte {
	return append(fmt.Appendf(dst, "%04x", len(text)+4), text...)
}

const flushPkt = "0000"

// errPkt is a malformed pkt-line.
var errPkt = errors.New("malformed pkt-line")

// readPkt reads a pkt-line; flush is true for a flush packet. It reads no byte too many.
func readPkt(r io.Reader) (data []byte, flush bool, err error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, false, err
	}
	n, err := strconv.ParseUint(string(head[:]), 16, 16)
	if err != nil || n > maxPkt || n > 0 && n < 4 {
		return nil, false, errPkt
	}
	if n == 0 {
		return nil, true, nil
	}
	data = make([]byte, n-4)
	if _, err := io.ReadFull(r, data); err != nil {
		return nil, false, errPkt
	}
	return data, false, nil
}

// sideband multiplexes an answer: the report on band 1, lines for people on band 2. Without side-band only the
// report is sent. Safe for concurrent use.
type sideband struct {
	mu      sync.Mutex
	w       http.ResponseWriter
	enabled bool
	err     error
}

// remote writes lines that git shows behind "remote:".
type remote struct{ s *sideband }

// Write sends text to the pusher's terminal. Control characters are replaced: what a file is called must not be
// able to move the cursor.
func (r remote) Write(p []byte) (int, error) {
	r.s.send(2, []byte(printable(string(p))))
	return len(p), nil
}

func printable(s string) string {
	return strings.Map(func(c rune) rune {
		switch {
		case c == '\n' || c == '\t':
			return c
		case c == utf8.RuneError || unicode.Is(unicode.Bidi_Control, c) || !unicode.IsPrint(c):
			return '?'
		}
		return c
	}, s)
}

// send writes data on a band, in as many packets as it takes.
func (s *sideband) send(band byte, data []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.enabled && band != 1 {
		return
	}
	for len(data) > 0 && s.err == nil {
		n := min(len(data), maxPkt-5)
		if s.enabled {
			_, s.err = fmt.Fprintf(s.w, "%04x%c%s", n+5, band, data[:n])
		} else {
			_, s.err = s.w.Write(data[:n])
		}
		data = data[n:]
	}
	if f, ok := s.w.(http.Flusher); ok && s.err == nil {
		f.Flush()
	}
}

// close ends the answer.
func (s *sideband) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.enabled && s.err == nil {
		_, s.err = io.WriteString(s.w, flushPkt)
	}
}
