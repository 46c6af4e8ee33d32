#pragma once
/// @file
/// Opt-in: safetensors files, Hugging Face directories, tables of JSON, tests of language models
/// and logs of metrics. Needs nlohmann/json, whose streaming parser reads all JSON.

#include <linnet/io/eval_tasks.hpp>
#include <linnet/io/hugging_face.hpp>
#include <linnet/io/json_lines.hpp>
#include <linnet/io/metrics_log.hpp>
