// SPDX-License-Identifier: Apache-2.0

package gitstore

import "encoding/binary"

// makeDelta describes target as the start of base, some new bytes, and the end of base. It returns nil when that
// does not save at least half.
func makeDelta(base, target []byte) []byte {
	head := commonPrefix(base, target)
	tail := commonSuffix(base[head:], target[head:])
	insert := target[head : len(target)-tail]
	if len(insert) > len(target)/2 {
		return nil
	}
	out := make([]byte, 0, 32+len(insert)+len(insert)/127)
	out = binary.AppendUvarint(out, uint64(len(base)))
	out = binary.AppendUvarint(out, uint64(len(target)))
	out = appendCopy(out, 0, head)
	for len(insert) > 0 {
		n := min(len(insert), 127)
		out = append(out, byte(n))
		out = append(out, insert[:n]...)
		insert = insert[n:]
	}
	return appendCopy(out, len(base)-tail, tail)
}

// appendCopy adds instructions that copy size bytes of the base.
func appendCopy(dst []byte, off, size int) []byte {
	for size > 0 {
		n := min(size, 0xffffff)
		at := len(dst)
		dst = append(dst, 0)
		op := byte(0x80)
		for i, v := range [7]byte{byte(off), byte(off >> 8), byte(off >> 16), byte(off >> 24), byte(n), byte(n >> 8), byte(n >> 16)} {
			if v != 0 {
				op |= 1 << i
				dst = append(dst, v)
			}
		}
		dst[at] = op
		off, size = off+n, size-n
	}
	return dst
}

func commonPrefix(a, b []byte) int {
	n := min(len(a), len(b))
	i := 0
	for ; i+8 <= n; i += 8 {
		if binary.LittleEndian.Uint64(a[i:]) != binary.LittleEndian.Uint64(b[i:]) {
			break
		}
	}
	for i < n && a[i] == b[i] {
		i++
	}
	return i
}

func commonSuffix(a, b []byte) int {
	n := min(len(a), len(b))
	i := 0
	for ; i+8 <= n; i += 8 {
		if binary.LittleEndian.Uint64(a[len(a)-i-8:]) != binary.LittleEndian.Uint64(b[len(b)-i-8:]) {
			break
		}
	}
	for i < n && a[len(a)-1-i] == b[len(b)-1-i] {
		i++
	}
	return i
}
