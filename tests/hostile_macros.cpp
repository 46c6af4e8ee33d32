// SPDX-License-Identifier: MIT
// Macros that other headers define must neither hurt the library nor be changed by it.

// The standard library and what opt-in headers adapt come first: they may use these names.
#include <bits/stdc++.h>
#if __has_include(<mpi.h>)
#include <mpi.h>
#endif
#if __has_include(<nlohmann/json.hpp>)
#include <nlohmann/json.hpp>
#endif
#if __has_include(<xtensor/xadapt.hpp>)
#include <xtensor/xadapt.hpp>
#endif
#if __has_include(<xxhash.h>)
#include <xxhash.h>
#endif
#if __has_include(<sentencepiece_processor.h>)
#include <sentencepiece_processor.h>
#endif

// windows.h, complex.h, X.h and AssertMacros.h: names that Eigen uses, too, so they step aside.
#define min(a, b) please do not expand min
#define max(a, b) please do not expand max
#define I please do not expand I
#define V please do not expand V
#define check please do not expand check
#define Success please do not expand Success

// windows.h
#define far please do not expand far
#define near please do not expand near
#define small please do not expand small
#define hyper please do not expand hyper
#define interface please do not expand interface
#define pascal please do not expand pascal
#define cdecl please do not expand cdecl
#define IN please do not expand IN
#define OUT please do not expand OUT
#define OPTIONAL please do not expand OPTIONAL
#define VOID please do not expand VOID
#define CONST please do not expand CONST
#define TRUE please do not expand TRUE
#define FALSE please do not expand FALSE
#define ERROR please do not expand ERROR
#define DELETE please do not expand DELETE
#define STRICT please do not expand STRICT
#define IGNORE please do not expand IGNORE
#define INFINITE please do not expand INFINITE
#define ABSOLUTE please do not expand ABSOLUTE
#define RELATIVE please do not expand RELATIVE
#define OPAQUE please do not expand OPAQUE
#define TRANSPARENT please do not expand TRANSPARENT
#define NO_ERROR please do not expand NO_ERROR
#define THIS please do not expand THIS
#define RGB please do not expand RGB
#define Yield please do not expand Yield
#define GetObject please do not expand GetObject
#define GetMessage please do not expand GetMessage
#define DrawText please do not expand DrawText
#define ReplaceText please do not expand ReplaceText
#define FindText please do not expand FindText
#define SearchPath please do not expand SearchPath
#define CreateFile please do not expand CreateFile

// X11
#define None please do not expand None
#define Bool please do not expand Bool
#define Status please do not expand Status
#define True please do not expand True
#define False please do not expand False
#define Always please do not expand Always
#define Never please do not expand Never
#define Above please do not expand Above
#define Below please do not expand Below
#define Unsorted please do not expand Unsorted
#define Complex please do not expand Complex
#define Convex please do not expand Convex
#define Absolute please do not expand Absolute
#define Expose please do not expand Expose
#define KeyPress please do not expand KeyPress
#define FocusIn please do not expand FocusIn
#define FocusOut please do not expand FocusOut
#define CursorShape please do not expand CursorShape
#define GrayScale please do not expand GrayScale
#define CurrentTime please do not expand CurrentTime
#define Button1 please do not expand Button1

// Qt and others with signals
#define slots please do not expand slots
#define signals please do not expand signals
#define emit please do not expand emit
#define foreach please do not expand foreach
#define forever please do not expand forever
#define Q_OBJECT please do not expand Q_OBJECT
#define Q_SIGNALS please do not expand Q_SIGNALS
#define Q_SLOTS please do not expand Q_SLOTS
#define Q_EMIT please do not expand Q_EMIT
#define Q_FOREVER please do not expand Q_FOREVER
#define SIGNAL please do not expand SIGNAL
#define SLOT please do not expand SLOT

// sys/sysmacros.h, AssertMacros.h, Objective-C, Arduino.h
#undef major
#define major please do not expand major
#undef minor
#define minor please do not expand minor
#undef makedev
#define makedev please do not expand makedev
#define verify please do not expand verify
#define require please do not expand require
#define nil please do not expand nil
#define Nil please do not expand Nil
#define YES please do not expand YES
#define NO please do not expand NO
#define PI please do not expand PI

#include <linnet/c_interface.hpp>
#include <linnet/compression.hpp>
#include <linnet/distributed/batch_part.hpp>
#include <linnet/distributed/costs.hpp>
#include <linnet/distributed/digest.hpp>
#include <linnet/distributed/gradient_units.hpp>
#include <linnet/distributed/messages.hpp>
#include <linnet/distributed/simulation.hpp>
#include <linnet/gguf.hpp>
#include <linnet/linnet.hpp>
#include <linnet/low_rank.hpp>
#include <linnet/numpy.hpp>
#include <linnet/search.hpp>
#if __has_include(<mpi.h>)
#include <linnet/mpi.hpp>
#if __has_include(<xxhash.h>)
#include <linnet/mpi_checkpoint.hpp>
#endif
#endif
#if __has_include(<nlohmann/json.hpp>)
#include <linnet/generated_data.hpp>
#include <linnet/json.hpp>
#endif
#if __has_include(<xtensor/xadapt.hpp>)
#include <linnet/xtensor.hpp>
#endif
#if __has_include(<xxhash.h>)
#include <linnet/cached_logits.hpp>
#include <linnet/calibration_file.hpp>
#include <linnet/checkpoint.hpp>
#endif
#if __has_include(<sentencepiece_processor.h>)
#include <linnet/sentencepiece.hpp>
#endif

#if !defined(min) || !defined(max) || !defined(I) || !defined(V) || !defined(check) || \
    !defined(Success)
#error "linnet.hpp has removed a macro of its user"
#endif
#define TEXT_OF(x) TEXT(x)
#define TEXT(x) #x
static_assert(sizeof TEXT_OF(Success) == sizeof "please do not expand Success");
