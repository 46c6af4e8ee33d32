#pragma once
/// @file
/// Opt-in: safetensors files, Hugging Face directories and tokenizers, tables of JSON lines, tests
/// of language models and logs of metrics. Needs nlohmann/json, whose streaming parser reads all
/// JSON.

#include <linnet/io/encoder_json.hpp>
#include <linnet/io/eval_tasks.hpp>
#include <linnet/io/hf_tokenizer.hpp>
#include <linnet/io/hugging_face.hpp>
#include <linnet/io/json_lines.hpp>
#include <linnet/io/metrics_log.hpp>
