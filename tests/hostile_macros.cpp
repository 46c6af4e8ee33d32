// Macros that other headers (windows.h, complex.h, X.h, Apple's AssertMacros.h) define must neither
// hurt the library nor be changed by it.

#include <bits/stdc++.h>  // first, for libstdc++ removes min and max itself

#define min(a, b) please do not expand min
#define max(a, b) please do not expand max
#define I please do not expand I
#define V please do not expand V
#define check please do not expand check
#define Success please do not expand Success

#include <linnet/linnet.hpp>

#if !defined(min) || !defined(max) || !defined(I) || !defined(V) || !defined(check) || \
    !defined(Success)
#error "linnet.hpp has removed a macro of its user"
#endif
#define TEXT_OF(x) TEXT(x)
#define TEXT(x) #x
static_assert(sizeof TEXT_OF(Success) == sizeof "please do not expand Success");
