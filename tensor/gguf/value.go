package gguf

import (
	"encoding/binary"
	"fmt"
	"math"
	"unicode/utf8"
)

// Metadata maps keys to values. A value is one of uint8, int8, uint16, int16,
// uint32, int32, uint64, int64, float32, float64, bool and string, or an array: a
// slice of one of them, or an []any whose elements are arrays. Strings are bytes:
// the words of a vocabulary need not be UTF-8.
type Metadata map[string]any

// valueType is the number that a file has for the type of a value.
type valueType uint32

const (
	typeUint8 valueType = iota
	typeInt8
	typeUint16
	typeInt16
	typeUint32
	typeInt32
	typeFloat32
	typeBool
	typeString
	typeArray
	typeUint64
	typeInt64
	typeFloat64
	valueTypes // how many there are
)

// least is how many bytes a value takes at least.
var least = [valueTypes]int64{
	typeUint8: 1, typeInt8: 1, typeUint16: 2, typeInt16: 2, typeUint32: 4, typeInt32: 4, typeFloat32: 4,
	typeBool: 1, typeString: 8, typeArray: 12, typeUint64: 8, typeInt64: 8, typeFloat64: 8,
}

// value reads a value of a type; depth is how many arrays it stands in.
func (c *cursor) value(t valueType, field string, depth int) (any, error) {
	switch t {
	case typeString:
		return c.text(field, MaxHeader)
	case typeArray:
		return c.array(field, depth+1)
	}
	at := c.at
	b, err := c.take(int(least[t]), field)
	if err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	switch t {
	case typeUint8:
		return b[0], nil
	case typeInt8:
		return int8(b[0]), nil
	case typeUint16:
		return le.Uint16(b), nil
	case typeInt16:
		return int16(le.Uint16(b)), nil
	case typeUint32:
		return le.Uint32(b), nil
	case typeInt32:
		return int32(le.Uint32(b)), nil
	case typeFloat32:
		return math.Float32frombits(le.Uint32(b)), nil
	case typeUint64:
		return le.Uint64(b), nil
	case typeInt64:
		return int64(le.Uint64(b)), nil
	case typeFloat64:
		return math.Float64frombits(le.Uint64(b)), nil
	}
	if b[0] > 1 { // the type is bool
		return nil, fail(at, field, "a bool is %d, want 0 or 1", b[0])
	}
	return b[0] == 1, nil
}

// valueType reads the type of a value.
func (c *cursor) valueType(field string) (valueType, error) {
	at := c.at
	n, err := c.uint32(field)
	if err == nil && n >= uint32(valueTypes) {
		err = fail(at, field, "type %d is not known; there are 0 to %d", n, valueTypes-1)
	}
	return valueType(n), err
}

func (c *cursor) array(field string, depth int) (any, error) {
	if depth > maxDepth {
		return nil, fail(c.at, field, "over %d arrays within each other", maxDepth)
	}
	t, err := c.valueType(field)
	if err != nil {
		return nil, err
	}
	n, err := c.count(field, least[t])
	if err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	switch t {
	case typeUint8:
		return numbers(c, n, 1, field, func(b []byte) uint8 { return b[0] })
	case typeInt8:
		return numbers(c, n, 1, field, func(b []byte) int8 { return int8(b[0]) })
	case typeUint16:
		return numbers(c, n, 2, field, le.Uint16)
	case typeInt16:
		return numbers(c, n, 2, field, func(b []byte) int16 { return int16(le.Uint16(b)) })
	case typeUint32:
		return numbers(c, n, 4, field, le.Uint32)
	case typeInt32:
		return numbers(c, n, 4, field, func(b []byte) int32 { return int32(le.Uint32(b)) })
	case typeUint64:
		return numbers(c, n, 8, field, le.Uint64)
	case typeInt64:
		return numbers(c, n, 8, field, func(b []byte) int64 { return int64(le.Uint64(b)) })
	case typeFloat32:
		return numbers(c, n, 4, field, func(b []byte) float32 { return math.Float32frombits(le.Uint32(b)) })
	case typeFloat64:
		return numbers(c, n, 8, field, func(b []byte) float64 { return math.Float64frombits(le.Uint64(b)) })
	case typeBool:
		return elements[bool](c, t, n, field, depth)
	case typeString:
		return elements[string](c, t, n, field, depth)
	}
	return elements[any](c, t, n, field, depth)
}

// numbers reads n numbers of so many bytes, for which the file has room.
func numbers[T any](c *cursor, n, size int, field string, get func([]byte) T) ([]T, error) {
	out := make([]T, 0, n)
	for len(out) < n {
		b, err := c.take(size*min(window/size, n-len(out)), field)
		if err != nil {
			return nil, err
		}
		for ; len(b) > 0; b = b[size:] {
			out = append(out, get(b))
		}
	}
	return out, nil
}

// elements reads n values, for which the file has room, and of which each may be
// refused.
func elements[T any](c *cursor, t valueType, n int, field string, depth int) ([]T, error) {
	out := make([]T, n)
	for i := range out {
		v, err := c.value(t, field, depth)
		if err != nil {
			return nil, err
		}
		out[i] = v.(T)
	}
	return out, nil
}

// appendValue writes the type of a value and the value.
func appendValue(b []byte, v any) ([]byte, error) {
	t, ok := typeOf(v)
	if !ok {
		return nil, fmt.Errorf("a %T is no value of this format; there are the sized integers and floats, bool, string and slices of those", v)
	}
	return appendBare(binary.LittleEndian.AppendUint32(b, uint32(t)), v, 0)
}

func typeOf(v any) (valueType, bool) {
	switch v.(type) {
	case uint8:
		return typeUint8, true
	case int8:
		return typeInt8, true
	case uint16:
		return typeUint16, true
	case int16:
		return typeInt16, true
	case uint32:
		return typeUint32, true
	case int32:
		return typeInt32, true
	case uint64:
		return typeUint64, true
	case int64:
		return typeInt64, true
	case float32:
		return typeFloat32, true
	case float64:
		return typeFloat64, true
	case bool:
		return typeBool, true
	case string:
		return typeString, true
	case []uint8, []int8, []uint16, []int16, []uint32, []int32, []uint64, []int64, []float32, []float64, []bool, []string, []any:
		return typeArray, true
	}
	return 0, false
}

// appendBare writes a value, whose type the reader knows; depth is how many arrays
// it stands in.
func appendBare(b []byte, v any, depth int) ([]byte, error) {
	le := binary.LittleEndian
	switch v := v.(type) {
	case uint8:
		return append(b, v), nil
	case int8:
		return append(b, byte(v)), nil
	case uint16:
		return le.AppendUint16(b, v), nil
	case int16:
		return le.AppendUint16(b, uint16(v)), nil
	case uint32:
		return le.AppendUint32(b, v), nil
	case int32:
		return le.AppendUint32(b, uint32(v)), nil
	case uint64:
		return le.AppendUint64(b, v), nil
	case int64:
		return le.AppendUint64(b, uint64(v)), nil
	case float32:
		return le.AppendUint32(b, math.Float32bits(v)), nil
	case float64:
		return le.AppendUint64(b, math.Float64bits(v)), nil
	case bool:
		if v {
			return append(b, 1), nil
		}
		return append(b, 0), nil
	case string:
		return appendText(b, v), nil
	case []uint8:
		return appendArray(b, typeUint8, v, depth)
	case []int8:
		return appendArray(b, typeInt8, v, depth)
	case []uint16:
		return appendArray(b, typeUint16, v, depth)
	case []int16:
		return appendArray(b, typeInt16, v, depth)
	case []uint32:
		return appendArray(b, typeUint32, v, depth)
	case []int32:
		return appendArray(b, typeInt32, v, depth)
	case []uint64:
		return appendArray(b, typeUint64, v, depth)
	case []int64:
		return appendArray(b, typeInt64, v, depth)
	case []float32:
		return appendArray(b, typeFloat32, v, depth)
	case []float64:
		return appendArray(b, typeFloat64, v, depth)
	case []bool:
		return appendArray(b, typeBool, v, depth)
	case []string:
		return appendArray(b, typeString, v, depth)
	}
	arrays := v.([]any)
	for _, a := range arrays {
		if t, ok := typeOf(a); !ok || t != typeArray {
			return nil, fmt.Errorf("an []any holds a %T; its elements must be arrays", a)
		}
	}
	return appendArray(b, typeArray, arrays, depth)
}

func appendArray[T any](b []byte, t valueType, values []T, depth int) (_ []byte, err error) {
	if depth == maxDepth {
		return nil, fmt.Errorf("over %d arrays within each other", maxDepth)
	}
	b = binary.LittleEndian.AppendUint32(b, uint32(t))
	b = binary.LittleEndian.AppendUint64(b, uint64(len(values)))
	for _, v := range values {
		if b, err = appendBare(b, v, depth+1); err != nil {
			return nil, err
		}
	}
	return b, nil
}

func appendText(b []byte, s string) []byte {
	b = binary.LittleEndian.AppendUint64(b, uint64(len(s)))
	return append(b, s...)
}

// checkName says what is wrong with a key or a tensor's name.
func checkName(name string, most int) error {
	switch {
	case name == "":
		return fmt.Errorf("it is empty")
	case len(name) > most:
		return fmt.Errorf("it has %d bytes, at most %d are allowed", len(name), most)
	case !utf8.ValidString(name):
		return fmt.Errorf("it is not UTF-8")
	}
	return nil
}
