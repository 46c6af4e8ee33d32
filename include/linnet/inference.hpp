// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// The part of linnet that a shipped program needs: models, files and tokenizers without JSON,
/// sessions, samplers. Training, compression and evaluation stay out; linnet/linnet.hpp has them.

#include <linnet/file/file.hpp>
#include <linnet/formats/llama2c.hpp>
#include <linnet/formats/packed_file.hpp>
#include <linnet/generate/embedder.hpp>
#include <linnet/generate/samplers.hpp>
#include <linnet/generate/session.hpp>
#include <linnet/model/encoder.hpp>
#include <linnet/model/presets.hpp>
#include <linnet/text/bytes.hpp>
#include <linnet/text/llama2c_tokenizer.hpp>
#include <linnet/text/stream.hpp>
