#pragma once
/// @file
/// Opt-in: a teacher's most probable tokens, written to a file once and learned from many times.
/// Needs xxHash (Debian: libxxhash-dev), whose header checks the bytes.

#include <linnet/io/recorded_teacher.hpp>
#include <linnet/io/teacher_recorder.hpp>
