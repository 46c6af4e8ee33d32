// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Opt-in: everything that needs nlohmann/json: safetensors, Hugging Face directories and
/// tokenizers, JSON lines, tests of language models, logs of metrics. Needs nlohmann/json, whose
/// streaming parser reads all JSON.

#include <linnet/data/json_lines.hpp>
#include <linnet/eval/squad.hpp>
#include <linnet/eval/task_readers.hpp>
#include <linnet/formats/hugging_face.hpp>
#include <linnet/formats/peft.hpp>
#include <linnet/formats/peft_gated.hpp>
#include <linnet/formats/peft_virtual.hpp>
#include <linnet/text/encoder_json.hpp>
#include <linnet/text/hf_tokenizer.hpp>
#include <linnet/train/metrics_log.hpp>
