//go:build cgo

package main

/*
#include <stdlib.h>

extern void goCallback(int);

static void callBack(int n) { goCallback(n); }
*/
import "C"

//export goCallback
func goCallback(n C.int) {
	kept = append(kept, innermost(int(n)))
}

// foreign allocates below a frame of C.
func foreign() {
	C.callBack(12345)
}
