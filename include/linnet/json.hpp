#pragma once
/// @file
/// Opt-in: safetensors files, Hugging Face directories and logs of metrics. Needs nlohmann/json, whose streaming
/// parser reads the JSON in both.

#include <linnet/io/hugging_face.hpp>
#include <linnet/io/metrics_log.hpp>
