// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Opt-in: a teacher's most probable tokens, written to a file once and learned from many times.
/// Needs xxHash (Debian: libxxhash-dev), whose header checks the bytes.

#include <linnet/distill/cached_logits_reader.hpp>
#include <linnet/distill/cached_logits_writer.hpp>
