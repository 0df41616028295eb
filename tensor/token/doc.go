// Package token turns text into the numbers that models read, and back: byte,
// character and byte-pair tokenizers, SentencePiece's, and the files that name
// them; and it packs tokens into shards for training.
//
// Encoding is a function of the tokenizer's file and the text alone. What a file
// asks for and this package can't do is refused by name, never left out. The
// texts of special tokens in a user's text are plain text unless the caller says
// otherwise, so that nobody forges a turn of a conversation.
//
// It imports nothing else of kith, opens no file and reads no clock. Character
// classes are those of the Unicode version that Go's unicode package has.
package token
