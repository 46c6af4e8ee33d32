// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Opt-in: GGUF files, llama.cpp's format of models. Needs nothing but linnet.

#include <linnet/formats/gguf_packed.hpp>
#include <linnet/formats/gguf_tokenizer.hpp>
#include <linnet/formats/gguf_writer.hpp>
