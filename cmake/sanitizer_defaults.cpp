// SPDX-License-Identifier: MIT
// What the sanitizers should know in every program of ours. Each function is optional for the
// sanitizer of its name and unused by the others.

// Allocations that fail must return null, for the library handles that.
extern "C" const char* __asan_default_options() { return "allocator_may_return_null=1"; }
// libomp is not instrumented, and keeps memory until the end.
extern "C" const char* __tsan_default_options() { return "ignore_noninstrumented_modules=1"; }
extern "C" const char* __lsan_default_suppressions() { return "leak:libomp.so"; }
