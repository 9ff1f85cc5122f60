// Package offheap holds large tables without pointers outside the collector's heap.
//
// What is reserved there counts neither towards the heap's goal nor towards its limit. A table that is mostly empty
// costs what has been written to it, and no more: on the heap, the collector takes all of it for live memory, and a
// few tables bring a small daemon to its memory limit, where it collects without pause.
package offheap

import (
	"fmt"
	"reflect"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Make returns a zeroed slice of n elements, whose memory is given back some time after owner has become unreachable:
// owner must be reachable for as long as the slice is used. It is on the heap only when the system refuses. It panics
// where E has pointers, which the collector would not see.
func Make[E, Owner any](owner *Owner, n int) []E {
	if t := reflect.TypeFor[E](); pointers(t) {
		panic(fmt.Sprintf("offheap: %v has pointers", t))
	}
	size := n * int(unsafe.Sizeof(*new(E)))
	if size == 0 {
		return make([]E, n)
	}
	mem, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return make([]E, n)
	}
	runtime.AddCleanup(owner, func(mem []byte) { _ = unix.Munmap(mem) }, mem)
	return unsafe.Slice((*E)(unsafe.Pointer(unsafe.SliceData(mem))), n) // a page is aligned for every type
}

func pointers(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Bool, reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr,
		reflect.Float32, reflect.Float64, reflect.Complex64, reflect.Complex128:
		return false
	case reflect.Array:
		return pointers(t.Elem())
	case reflect.Struct:
		for i := range t.NumField() {
			if pointers(t.Field(i).Type) {
				return true
			}
		}
		return false
	default:
		return true
	}
}
