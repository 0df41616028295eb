package token

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"unicode/utf8"
)

// PackText appends one document to a shard: its tokens in their frame, then EOS
// if the tokenizer has one and the frame does not end in it.
func PackText(w *ShardWriter, t *Tokenizer, text string) error {
	ids, err := t.Encode(text)
	if err != nil {
		return err
	}
	ids = t.Frame(ids)
	if eos, ok := t.EOS(); ok && (len(t.after) == 0 || t.after[len(t.after)-1] != eos) {
		ids = append(ids, eos)
	}
	return w.Write(ids)
}

// Message is one turn of a conversation.
type Message struct {
	Role    string `json:"role"` // system, user, assistant or tool
	Content string `json:"content"`
}

// The special tokens of the chat template, ChatML. A tokenizer for chat has both.
const (
	ChatStart = "<|im_start|>"
	ChatEnd   = "<|im_end|>"
)

// EncodeChat gives the tokens of a conversation, and which of them count for the
// loss. For each message it writes
//
//	<|im_start|>ROLE\nCONTENT<|im_end|>\n
//
// and, if the tokenizer has them and they are others, BOS before the first and
// EOS after the last. What an assistant says counts, with its <|im_end|>, and
// nothing else does. It is encoded by itself, as a model that generates it has
// it after the newline. No content can forge a special token.
func EncodeChat(t *Tokenizer, messages []Message) (ids []ID, loss []bool, err error) {
	start, ok1 := t.Special(ChatStart)
	end, ok2 := t.Special(ChatEnd)
	if !ok1 || !ok2 {
		return nil, nil, fmt.Errorf("chat: the tokenizer lacks %s or %s among its special tokens", ChatStart, ChatEnd)
	}
	if len(messages) == 0 {
		return nil, nil, errors.New("chat: there are no messages")
	}
	add := func(counts bool, more ...ID) {
		ids = append(ids, more...)
		loss = append(loss, slices.Repeat([]bool{counts}, len(more))...)
	}
	if bos, ok := t.BOS(); ok && bos != start {
		add(false, bos)
	}
	newline, err := t.Encode("\n")
	if err != nil {
		return nil, nil, fmt.Errorf("chat: %w", err)
	}
	for i, m := range messages {
		reply := m.Role == "assistant"
		head, tail := m.Role+"\n", m.Content
		switch m.Role {
		case "assistant":
		case "system", "user", "tool":
			head, tail = head+tail, ""
		default:
			return nil, nil, fmt.Errorf("chat: role of message %d is %q, want system, user, assistant or tool", i, m.Role)
		}
		add(false, start)
		for _, part := range []struct {
			text   string
			counts bool
		}{{head, false}, {tail, true}} {
			more, err := t.Encode(part.text)
			if err != nil {
				return nil, nil, fmt.Errorf("chat: message %d: %w", i, err)
			}
			add(part.counts, more...)
		}
		add(reply, end)
		add(false, newline...)
	}
	if eos, ok := t.EOS(); ok && eos != end {
		add(false, eos)
	}
	return ids, loss, nil
}

// MaxChatLine is how many bytes a line of chat JSONL may have.
const MaxChatLine = 16 << 20

// PackChat appends the conversations of chat JSONL to a shard with a mask, one a
// line: {"messages": [{"role": "user", "content": "..."}, ...]}. Other members of
// a line are passed over; of a message they are refused by name, since they would
// change what it means. It returns how many it packed, also when it fails.
func PackChat(w *ShardWriter, t *Tokenizer, r io.Reader) (n int, err error) {
	in := bufio.NewReader(r)
	for number := 1; ; number++ {
		line, err := readLine(in)
		if err != nil && err != io.EOF {
			return n, fmt.Errorf("chat: line %d: %w", number, err)
		}
		if len(bytes.TrimSpace(line)) > 0 {
			messages, bad := parseChat(line)
			if bad != nil {
				return n, fmt.Errorf("chat: line %d: %w", number, bad)
			}
			ids, loss, bad := EncodeChat(t, messages)
			if bad == nil {
				bad = w.WriteMasked(ids, loss)
			}
			if bad != nil {
				return n, fmt.Errorf("line %d: %w", number, bad)
			}
			n++
		}
		if err == io.EOF {
			return n, nil
		}
	}
}

// readLine reads up to a newline, or gives io.EOF with the last line.
func readLine(in *bufio.Reader) (line []byte, err error) {
	for {
		part, err := in.ReadSlice('\n')
		if len(line)+len(part) > MaxChatLine {
			return nil, fmt.Errorf("more than %d bytes", MaxChatLine)
		}
		line = append(line, part...)
		if err != bufio.ErrBufferFull {
			return line, err
		}
	}
}

func parseChat(line []byte) ([]Message, error) {
	if !utf8.Valid(line) {
		return nil, errors.New("it is not UTF-8")
	}
	var c struct {
		Messages []json.RawMessage `json:"messages"`
	}
	if err := json.Unmarshal(line, &c); err != nil {
		return nil, err
	}
	messages := make([]Message, len(c.Messages))
	for i, raw := range c.Messages {
		var m struct {
			Role    *string `json:"role"`
			Content *string `json:"content"`
		}
		if err := strict(raw, &m); err != nil {
			return nil, fmt.Errorf("message %d: %w", i, err)
		}
		if m.Role == nil || m.Content == nil {
			return nil, fmt.Errorf("message %d: want a role and a content, both texts", i)
		}
		messages[i] = Message{*m.Role, *m.Content}
	}
	return messages, nil
}
